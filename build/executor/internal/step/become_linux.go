package step

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"unsafe"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
)

// maxUserFile bounds what is read of an image's /etc/passwd.
const maxUserFile = 10 << 20

// Process is what a step's process is to be like, as plain data.
type Process struct {
	Terminal bool
	Args     []string
	Env      []string // without doubles
	Cwd      string

	UID, GID   uint32
	Groups     []uint32
	KeepGroups bool // setgroups is denied in this user namespace
	Rlimits    []Rlimit
	Caps       CapSets
	NoNewPrivs bool
	Seccomp    []unix.SockFilter // empty: none
}

// Rlimit is one resource limit.
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// Become gives up what the step must not have, in the one order that works, and becomes it. It returns only on
// failure. restrict, which may be nil, adds restrictions of its own: it is called when nothing needs to be looked up
// any more, with all capabilities that are left still effective.
func Become(p *Process, restrict func() error) error {
	if err := setRlimits(p.Rlimits); err != nil {
		return err
	}
	unix.Umask(0o022)
	env := p.Env
	if lookupEnv(env, "HOME") == "" { // as runc does
		env = append(dropEnv(env, "HOME"), "HOME="+homeOf(p.UID))
	}
	had, err := Permitted()
	if err != nil {
		return Setup(err, "read capabilities")
	}
	caps := p.Caps.Within(had)
	// A session keyring of its own; where that is forbidden, keyctl is forbidden to the step as well.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	if err := DropBounding(caps.Bounding); err != nil {
		return Setup(err, "drop capabilities")
	}
	if err := ownStreams(p); err != nil {
		return err
	}
	// Tried first with full rights, since the step's user may not be allowed to pass a parent folder; then again.
	cwdErr := unix.Chdir(p.Cwd)
	if err := setIDs(p); err != nil {
		return err
	}
	if cwdErr != nil {
		cwdErr = unix.Chdir(p.Cwd)
	}
	if cwdErr != nil {
		return Setup(cwdErr, "enter working directory %q", p.Cwd)
	}
	// A cwd outside of the root (CVE-2024-21626) is not reachable from it.
	if _, err := unix.Getcwd(make([]byte, unix.PathMax)); err != nil {
		return Setup(err, "enter working directory %q", p.Cwd)
	}
	program, err := lookPath(p.Args[0], lookupEnv(env, "PATH"))
	if err != nil {
		return Setup(err, "exec %q", p.Args[0])
	}
	if err := confine(p, caps, restrict); err != nil {
		return err
	}
	resetSignals()
	return Setup(unix.Exec(program, p.Args, env), "exec %q", p.Args[0])
}

func setRlimits(list []Rlimit) error {
	for _, r := range list {
		if err := unix.Setrlimit(r.Resource, &unix.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return Setup(err, "set resource limit %d", r.Resource)
		}
	}
	return nil
}

// ownStreams gives the streams to the step's user, as runc does: or it could not open /dev/stdout.
func ownStreams(p *Process) error {
	null := unix.Mkdev(1, 3)
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Uid == p.UID || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == null {
			continue
		}
		err := unix.Fchown(fd, int(p.UID), int(st.Gid))
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			return Setup(err, "give stream %d to the step's user", fd)
		}
	}
	return nil
}

// setIDs takes the step's user and groups, this thread only, and keeps the permitted capabilities for what follows.
func setIDs(p *Process) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return Setup(err, "keep capabilities")
	}
	if !p.KeepGroups {
		var first unsafe.Pointer
		if len(p.Groups) > 0 {
			first = unsafe.Pointer(&p.Groups[0])
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(first), 0); errno != 0 {
			return Setup(idError(errno), "set groups")
		}
	}
	gid, uid := uintptr(p.GID), uintptr(p.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return Setup(idError(errno), "set group %d", p.GID)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return Setup(idError(errno), "set user %d", p.UID)
	}
	return nil
}

// idError explains the kernel's "invalid argument".
func idError(errno unix.Errno) error {
	if errno == unix.EINVAL {
		return fmt.Errorf("the id is not mapped in this user namespace: %w", errno)
	}
	return errno
}

// confine loads the filter while that is still allowed, then takes the final capabilities. Changing ids has cleared
// the death signal, so it is set again; if the parent died in between, nobody holds the control socket's other end.
func confine(p *Process, caps CapSets, restrict func() error) error {
	all, err := Permitted()
	if err != nil {
		return Setup(err, "read capabilities")
	}
	if err := SetCaps(CapSets{Effective: all, Permitted: all, Inheritable: caps.Inheritable}); err != nil {
		return Setup(err, "raise capabilities")
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return Setup(err, "set death signal")
	}
	poll := []unix.PollFd{{Fd: ControlFD}}
	if _, err := unix.Poll(poll, 0); err == nil && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
		return Setup(unix.ESRCH, "find parent")
	}
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return Setup(err, "forbid new privileges")
		}
	}
	if restrict != nil {
		if err := restrict(); err != nil {
			return err
		}
	}
	// runc's default as well: without the flag, older kernels slow every filtered process down against Spectre.
	if err := seccomp.Load(p.Seccomp, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW); err != nil {
		return Setup(err, "load seccomp filter")
	}
	if err := SetCaps(caps); err != nil {
		return Setup(err, "set capabilities")
	}
	return Setup(RaiseAmbient(caps.Ambient), "set ambient capabilities")
}

func lookupEnv(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func dropEnv(env []string, name string) []string {
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return out
}

// homeOf is the home folder that the image's passwd file gives to uid, and "/" for one that it doesn't know.
func homeOf(uid uint32) string {
	// Neither a fifo nor a device may hold this process up.
	f, err := os.OpenFile("/etc/passwd", os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "/"
	}
	list, err := user.ParsePasswdFilter(io.LimitReader(f, maxUserFile), func(u user.User) bool { return u.Uid == int(uid) })
	if err != nil || len(list) == 0 || list[0].Home == "" {
		return "/"
	}
	return list[0].Home
}

// lookPath finds the program as execvp would: in the step's PATH unless its name has a slash.
func lookPath(name, list string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	found := error(unix.ENOENT)
	for _, dir := range strings.Split(list, ":") {
		if dir == "" {
			dir = "."
		}
		p := path.Join(dir, name)
		if !strings.Contains(p, "/") {
			p = "./" + p
		}
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, unix.EACCES) {
			found = err
		}
	}
	if errors.Is(found, unix.ENOENT) {
		return "", fmt.Errorf("not found in $PATH: %w", found)
	}
	return "", found
}

func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS)
}

// resetSignals puts signals that are ignored back to their default, since execve would leave them so: whoever started
// us may have (nohup does). Those with a handler go back to their default by execve itself. Raw calls, because
// os/signal would install sixty handlers first, at a cost of milliseconds.
func resetSignals() {
	const lastSignal, ignore = 64, 1
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var act struct{ handler, flags, restorer, mask uintptr } // the kernel's, on 64-bit machines
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0)
		if errno != 0 || act.handler != ignore {
			continue
		}
		act.handler = 0
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	}
}
