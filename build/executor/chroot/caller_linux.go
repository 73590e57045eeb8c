package chroot

import (
	"bytes"
	"errors"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// maxPath is how long a path may be, with its end.
const maxPath = unix.PathMax

// caller is the thread whose call is being answered.
type caller struct {
	s   *server
	n   *seccomp.Notice
	tid int

	tgid     int // 0: not looked up yet
	known    bool
	uid, gid uint32 // of what it does to files
}

// process is the number of the caller's process.
func (c *caller) process() int {
	if c.tgid != 0 {
		return c.tgid
	}
	c.tgid = c.tid
	data, err := c.s.read(strconv.Itoa(c.tid) + "/status")
	if err != nil {
		return c.tgid
	}
	_, after, _ := bytes.Cut(data, []byte("\nTgid:\t"))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	if tgid, ok := number(string(line)); ok {
		c.tgid = tgid
	}
	return c.tgid
}

// as calls f with the caller's rights on files. A process that nobody may look into counts as root's, and then its
// memory can't be read, so that nothing is done for it.
func (c *caller) as(f func() error) error {
	if !c.known {
		var st unix.Stat_t
		if err := unix.Fstatat(c.s.proc, strconv.Itoa(c.tid), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		c.known, c.uid, c.gid = true, st.Uid, st.Gid
	}
	return asUser(c.uid, c.gid, f)
}

// text reads a path out of the caller's memory.
func (c *caller) text(addr uint64) (string, bool) {
	p, err := seccomp.Text(addr, c.load)
	return p, err == nil
}

// load reads the caller's memory. Nothing of it is kept: a process made by vfork shares it with its parent.
func (c *caller) load(addr uint64, buf []byte) int {
	if len(buf) == 0 {
		return 0
	}
	if !c.s.slowReads.Load() {
		local := []unix.Iovec{{Base: &buf[0]}}
		local[0].SetLen(len(buf))
		n, err := unix.ProcessVMReadv(c.tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}, 0)
		if err == nil {
			return n
		}
		if errors.Is(err, unix.ENOSYS) {
			c.s.slowReads.Store(true)
		}
	}
	n := -1
	err := c.memory(unix.O_RDONLY, func(fd int) (err error) {
		n, err = unix.Pread(fd, buf, int64(addr))
		return err
	})
	if err != nil {
		return -1
	}
	return n
}

// store writes into the caller's memory.
func (c *caller) store(addr uint64, data []byte) unix.Errno {
	err := c.memory(unix.O_WRONLY, func(fd int) error {
		n, err := unix.Pwrite(fd, data, int64(addr))
		if err == nil && n < len(data) {
			err = unix.EFAULT
		}
		return err
	})
	if err != nil {
		return unix.EFAULT
	}
	return 0
}

// memory opens the caller's memory, and calls f only if it is the caller's: its number could have been given to
// another process, but not while its call waits.
func (c *caller) memory(flags int, f func(fd int) error) error {
	var fd int
	err := c.as(func() (err error) {
		fd, err = c.s.open(strconv.Itoa(c.tid)+"/mem", flags)
		return err
	})
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	if !c.s.waits(c.n.ID) {
		return unix.ESRCH
	}
	return f(fd)
}

// readlink reads a link of the outer /proc with the caller's rights. Paths come out as the step sees them, since its
// root is ours.
func (s *server) readlink(c *caller, name string) (string, unix.Errno) {
	buf := make([]byte, maxPath)
	n := 0
	err := c.as(func() (err error) {
		n, err = unix.Readlinkat(s.proc, name, buf)
		return err
	})
	if err != nil {
		return "", errnoOf(err)
	}
	return string(buf[:n]), 0
}

// errnoOf is the kernel's number behind an error, EACCES if there is none.
func errnoOf(err error) unix.Errno {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return unix.EACCES
}

// absolute is the caller's path as one from its root. ok is false where that can't matter or can't be known.
func (c *caller) absolute(dirfd int32, p string) (string, bool) {
	if strings.HasPrefix(p, "/") {
		return p, true
	}
	if p == "" || !c.s.roaming.Load() && !mayLead(p) {
		return "", false
	}
	link := strconv.Itoa(c.tid) + "/cwd"
	if dirfd != unix.AT_FDCWD {
		if dirfd < 0 {
			return "", false
		}
		link = strconv.Itoa(c.tid) + "/fd/" + strconv.Itoa(int(dirfd))
	}
	base, errno := c.s.readlink(c, link)
	if errno != 0 || !strings.HasPrefix(base, "/") {
		return "", false
	}
	return base + "/" + p, true
}

// chase follows links at the end of a path, as long as they are none of /proc, to what is served: programs' logs are
// often links to /dev/stdout.
func chase(p string) (tree string, rest []string, ok bool) {
	buf := make([]byte, maxPath)
	for range maxLinks {
		if tree, rest, ok = under(p); ok && tree == "proc" {
			return tree, rest, true
		}
		n, err := unix.Readlink(p, buf)
		if err != nil || n == 0 {
			return tree, rest, ok
		}
		target := string(buf[:n])
		if !strings.HasPrefix(target, "/") {
			target = path.Join(path.Dir(p), target)
		}
		p = target
	}
	return "", nil, false
}
