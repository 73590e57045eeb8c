package executor

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// ownersCaller is the thread whose call is being answered.
type ownersCaller struct {
	s    *ownersServer
	n    *seccomp.Notice
	path string // from its root, as far as that was needed

	result int64 // what the call returns if it succeeds
}

// file opens what a call is about, with O_PATH.
func (c *ownersCaller) file(call ownersCall) (int, error) {
	dir := int32(unix.AT_FDCWD)
	if call.fd >= 0 {
		dir = int32(c.n.Args[call.fd])
	}
	if call.path < 0 {
		return c.openBase(dir)
	}
	flags := 0
	if call.flags >= 0 {
		flags = int(int32(c.n.Args[call.flags]))
	}
	addr := c.n.Args[call.path]
	if addr == 0 && flags&unix.AT_EMPTY_PATH != 0 { // Linux 6.11
		return c.openBase(dir)
	}
	name, err := c.text(addr)
	switch {
	case err != nil:
		return -1, err
	case name == "" && flags&unix.AT_EMPTY_PATH != 0:
		return c.openBase(dir)
	case name == "":
		return -1, unix.ENOENT
	}
	return c.open(dir, name, !call.nofollow && flags&unix.AT_SYMLINK_NOFOLLOW == 0)
}

// base names the caller's folder or descriptor in /proc.
func (c *ownersCaller) base(fd int32) (string, error) {
	if fd == unix.AT_FDCWD {
		return c.proc("cwd"), nil
	}
	if fd < 0 {
		return "", unix.EBADF
	}
	return c.proc(fmt.Sprintf("fd/%d", fd)), nil
}

func (c *ownersCaller) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", c.n.PID, name) }

func (c *ownersCaller) openBase(fd int32) (int, error) {
	name, err := c.base(fd)
	if err != nil {
		return -1, err
	}
	opened, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EBADF
	}
	return opened, err
}

// open finds a path as the caller would, and never leaves its root.
func (c *ownersCaller) open(dir int32, name string, follow bool) (int, error) {
	c.path = name
	if !strings.Contains(name, "/") && name != ".." {
		fd, err := c.openEntry(dir, name)
		if err != nil || !follow {
			return fd, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return fd, err
		}
		step.Closing(fd)
	}
	if !strings.HasPrefix(name, "/") {
		var err error
		if c.path, err = c.absolute(dir, name); err != nil {
			return -1, err
		}
	}
	root, err := unix.Open(c.proc("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer step.Closing(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(root, c.path, &how)
		// EAGAIN: something was renamed on the way, so the kernel can't vouch for "..".
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) || try > 100 {
			return fd, err
		}
	}
}

// openEntry opens what is in a folder itself, or is a link there: nothing leads elsewhere.
func (c *ownersCaller) openEntry(dir int32, name string) (int, error) {
	folder, err := c.openBase(dir)
	if err != nil {
		return -1, err
	}
	defer step.Closing(folder)
	return unix.Openat(folder, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// absolute is the caller's path as one from its root, which may be another than the step's.
func (c *ownersCaller) absolute(dir int32, name string) (string, error) {
	link, err := c.base(dir)
	if err != nil {
		return "", err
	}
	base, err := readlink(link)
	if err != nil {
		return "", err
	}
	root, err := readlink(c.proc("root"))
	if err != nil {
		return "", err
	}
	if root != "/" {
		below, ok := strings.CutPrefix(base, root)
		if !ok {
			return "", unix.EXDEV
		}
		base = "/" + below
	}
	return base + "/" + name, nil
}

func readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(name, buf)
	if err == nil && n == len(buf) {
		err = unix.ENAMETOOLONG
	}
	return string(buf[:max(n, 0)]), err
}

// text reads a path out of the caller's memory.
func (c *ownersCaller) text(addr uint64) (string, error) {
	name, err := seccomp.Text(addr, c.load)
	if err == nil && !c.s.waits(c.n) { // another's memory
		err = unix.ESRCH
	}
	return name, err
}

func (c *ownersCaller) load(addr uint64, buf []byte) int {
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	n, err := unix.ProcessVMReadv(int(c.n.PID), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}, 0)
	if err != nil {
		return -1
	}
	return n
}

// store writes into the caller's memory, whose number could have been given to another process, but not while its call
// waits: so the memory is opened first.
func (c *ownersCaller) store(addr uint64, data []byte) error {
	fd, err := unix.Open(c.proc("mem"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errGoOn
	}
	defer step.Closing(fd)
	if !c.s.waits(c.n) {
		return unix.ESRCH
	}
	if n, err := unix.Pwrite(fd, data, int64(addr)); err != nil || n < len(data) {
		return unix.EFAULT
	}
	return nil
}
