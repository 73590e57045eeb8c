package chroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// device is a node that every step finds in /dev.
type device struct {
	name         string
	major, minor uint32
}

func devices() []device {
	return []device{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}
}

// fixtures puts in place what every step has: /dev, empty /proc and /sys, resolv.conf and hosts.
func (s *scene) fixtures(resolvConf, hosts string, network bool) error {
	if err := s.putNew("/dev", false, s.dev); err != nil {
		return step.Setup(err, "make /dev")
	}
	for _, name := range []string{"/proc", "/sys"} {
		if err := s.putNew(name, false, func(at string) error { return makeFolder(at, 0o555) }); err != nil {
			return step.Setup(err, "make %s", name)
		}
	}
	contents := map[string][]byte{}
	var err error
	if contents["/etc/resolv.conf"], err = os.ReadFile(resolvConf); err != nil {
		return err
	}
	if contents["/etc/hosts"], err = hostsWithOuter(hosts, network); err != nil {
		return err
	}
	for name, data := range contents {
		if err := s.putNew(name, false, func(at string) error { return writeFile(at, data, 0o644, 0, 0) }); err != nil {
			return step.Setup(err, "make %s", name)
		}
	}
	return nil
}

// maxHosts bounds what is read of the outer hosts file.
const maxHosts = 1 << 20

// hostsWithOuter is BuildKit's hosts file with what the outer one has besides: a step shares the outer network and host
// name, and so the neighbours that a CI service names there.
func hostsWithOuter(hosts string, network bool) ([]byte, error) {
	data, err := os.ReadFile(hosts)
	if err != nil || !network {
		return data, err
	}
	own, _ := os.Hostname() // without one there is nothing to add
	if f, err := os.Open("/etc/hosts"); err == nil {
		defer f.Close()
		outer, err := io.ReadAll(io.LimitReader(f, maxHosts))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(outer)) {
			entry, _, _ := strings.Cut(line, "#")
			names := strings.Fields(entry)
			if len(names) < 2 || slices.Contains(names, "localhost") || slices.Contains(names, "ip6-localhost") {
				continue
			}
			if slices.Contains(names[1:], own) {
				own = ""
			}
			data = append(data, strings.Join(names, " ")+"\n"...)
		}
	}
	if own != "" {
		data = append(data, "127.0.0.1 "+own+"\n"...)
	}
	return data, nil
}

// dev makes the folder that becomes /dev.
func (s *scene) dev(at string) error {
	if err := makeFolder(at, 0o755); err != nil {
		return err
	}
	for _, d := range devices() {
		if err := s.node(filepath.Join(at, d.name), d); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"core": "/proc/kcore", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(at, name)); err != nil {
			return err
		}
	}
	if err := makeFolder(filepath.Join(at, "pts"), 0o755); err != nil {
		return err
	}
	return makeFolder(filepath.Join(at, "shm"), 0o777|unix.S_ISVTX)
}

// node makes a device that works, or else an empty file that stands in for it.
func (s *scene) node(at string, d device) error {
	if !s.standIns {
		err := unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor)))
		if err == nil {
			err = usable(at)
		}
		if err == nil {
			return unix.Chmod(at, 0o666)
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			return err
		}
		s.standIns = true
		if err := os.RemoveAll(at); err != nil {
			return err
		}
	}
	return writeFile(at, nil, 0o666, 0, 0)
}

// usable says whether a node that could be made can be opened as well: not so on a mount that is nodev.
func usable(at string) error {
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) { // /dev/tty, without a terminal
		return nil
	}
	if err == nil {
		step.Closing(fd)
	}
	return err
}

// makeFolder makes a folder with exactly this mode.
func makeFolder(at string, mode uint32) error {
	if err := unix.Mkdir(at, 0o700); err != nil {
		return err
	}
	return unix.Chmod(at, mode)
}

// writeFile makes a file that nobody else can read before it has its owner and mode.
func writeFile(at string, data []byte, mode fs.FileMode, uid, gid int) error {
	if err := os.WriteFile(at, data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(at, uid, gid); err != nil {
		return err
	}
	return os.Chmod(at, mode)
}

// copyAll copies a file or a folder with all that is in it; file systems that can do so share the blocks.
func copyAll(at, source string, info fs.FileInfo) error {
	if info.IsDir() {
		return cfs.CopyDir(at, source)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is neither a file nor a folder", source)
	}
	if err := cfs.CopyFile(at, source); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return err
	}
	return errors.Join(os.Chown(at, int(st.Uid), int(st.Gid)), unix.Chmod(at, st.Mode&0o7777),
		unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{st.Atim, st.Mtim}, 0))
}

// socket makes another name for a socket, or on another file system a socket that forwards to it.
func (s *scene) socket(ctx context.Context, source, at string) error {
	err := os.Link(source, at)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return err
	}
	// By a descriptor of the folder: the path could be longer than a socket's name may be.
	dir, err := os.Open(filepath.Dir(at))
	if err != nil {
		return err
	}
	defer dir.Close()
	l, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(step.FDPath(int(dir.Fd())), filepath.Base(at)))
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	s.releases = append(s.releases, l.Close)
	go forward(ctx, l, source)
	return errors.Join(os.Chown(at, int(st.Uid), int(st.Gid)), unix.Chmod(at, st.Mode&0o777))
}

// forward connects whoever comes to l with the socket at target, until l is closed.
func forward(ctx context.Context, l net.Listener, target string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close() //nolint:errcheck // a stream that has ended has nothing more to say
			out, err := new(net.Dialer).DialContext(ctx, "unix", target)
			if err != nil {
				return
			}
			defer out.Close() //nolint:errcheck // as above
			go func() {
				_, _ = io.Copy(out, in)
				_ = out.(*net.UnixConn).CloseWrite()
			}()
			_, _ = io.Copy(in, out)
		}()
	}
}
