package chroot

import (
	"encoding/binary"
	"errors"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// stubs are the folders that stand for those of /proc. They lie in the step's root, so that the kernel's own ideas of
// them (where a process is, what a descriptor's name is) are right, and hold empty files and broken links, whose names
// and types are all that can be seen of them: calls with their paths are answered by the server. The step may do to
// them what it likes, so no link in them is followed.
type stubs struct {
	dir  int // O_PATH, the step's /proc
	mu   sync.Mutex
	link string    // the last one made for an execve
	made time.Time // and when
}

// stubOf opens the stub of a folder. With fill it holds what the folder holds now.
func (c *caller) stubOf(n node, fill bool) (int, error) {
	var names map[string]uint32
	var err error
	if fill {
		if names, err = c.names(n); err != nil {
			return -1, err
		}
	}
	var st unix.Stat_t
	if n.pid != 0 {
		if err := unix.Fstatat(c.s.proc, n.path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return -1, err
		}
	}
	s := &c.s.stubs
	s.mu.Lock()
	defer s.mu.Unlock()
	// By its real name and, if that is another one (self), by the caller's, from where it may be entered.
	fd, err := s.folder(n.path, &st)
	if err != nil {
		return -1, err
	}
	if n.name != n.path && !strings.Contains(n.name, "..") {
		other, err := s.folder(n.name, &st)
		if err == nil {
			step.Closing(other)
		}
	}
	if fill {
		if err := s.fill(fd, names); err != nil {
			step.Closing(fd)
			return -1, err
		}
	}
	defer step.Closing(fd)
	return unix.Openat2(fd, ".", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC})
}

// folder opens a stub by its name, and makes what is missing of it.
func (s *stubs) folder(name string, owner *unix.Stat_t) (int, error) {
	cur, err := s.within(s.dir, ".")
	if err != nil {
		return -1, err
	}
	for _, part := range components(name) {
		err := unix.Mkdirat(cur, part, 0o555)
		made := err == nil
		next, err := s.within(cur, part)
		step.Closing(cur)
		if err != nil {
			return -1, err
		}
		if made && (owner.Uid != 0 || owner.Gid != 0) {
			if err := unix.Fchownat(next, "", int(owner.Uid), int(owner.Gid), unix.AT_EMPTY_PATH); err != nil {
				step.Closing(next)
				return -1, err
			}
		}
		cur = next
	}
	return cur, nil
}

func (s *stubs) within(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// fill makes the folder hold these names and no others.
func (s *stubs) fill(dir int, names map[string]uint32) error {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	have, err := list(fd)
	step.Closing(fd)
	if err != nil {
		return err
	}
	for name := range have {
		if _, ok := names[name]; !ok {
			if err := removeAt(dir, name); err != nil {
				return err
			}
		}
	}
	for name, kind := range names {
		if _, ok := have[name]; ok {
			continue
		}
		switch kind {
		case unix.DT_DIR:
			err = unix.Mkdirat(dir, name, 0o555)
		case unix.DT_LNK:
			err = unix.Symlinkat("?", dir, name)
		default:
			err = unix.Mknodat(dir, name, unix.S_IFREG|0o444, 0)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// execGrace is how long the kernel is given to come by a link before another one takes its place.
const execGrace = 20 * time.Millisecond

// linkFor makes name, in the step's /proc, a link to text for an execve that is about to go on. There is one such link
// for all processes; that another one is wanted at the same time is rare, so that one waits.
func (s *server) linkFor(name, text string) error {
	t := &s.stubs
	t.mu.Lock()
	defer t.mu.Unlock()
	dir, err := t.folder(path.Dir(name), &unix.Stat_t{})
	if err != nil {
		return err
	}
	defer step.Closing(dir)
	base := path.Base(name)
	buf := make([]byte, maxPath)
	n, err := unix.Readlinkat(dir, base, buf)
	if err == nil && string(buf[:n]) == text {
		t.link, t.made = name, time.Now()
		return nil
	}
	if t.link == name {
		time.Sleep(time.Until(t.made.Add(execGrace)))
	}
	if err := removeAt(dir, base); err != nil {
		return err
	}
	t.link, t.made = name, time.Now()
	return unix.Symlinkat(text, dir, base)
}

// list reads the names and types in an open folder.
func list(fd int) (map[string]uint32, error) {
	out, buf := map[string]uint32{}, make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return out, nil
		}
		for rest := buf[:n]; len(rest) > direntName; {
			size := int(binary.NativeEndian.Uint16(rest[direntSize:]))
			name, _, _ := strings.Cut(string(rest[direntName:size]), "\x00")
			if name != "." && name != ".." {
				out[name] = uint32(rest[direntType])
			}
			rest = rest[size:]
		}
	}
}

// Where the parts of the kernel's struct linux_dirent64 lie.
const (
	direntSize = 16
	direntType = 18
	direntName = 19
)
