package chroot

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// answer decides what becomes of a call with a path. It is let through unless the path leads to what is served.
func (c *caller) answer(what *pathCall) answer {
	p, ok := c.text(c.n.Args[what.path])
	if !ok {
		return answer{}
	}
	dirfd := int32(unix.AT_FDCWD)
	if what.dirfd >= 0 {
		dirfd = int32(c.n.Args[what.dirfd])
	}
	p, ok = c.absolute(dirfd, p)
	if !ok {
		return answer{}
	}
	r, ok := c.request(what)
	if !ok {
		return answer{}
	}
	tree, rest, ok := under(p)
	if !ok && r.follow || ok && tree == "dev" && r.follow {
		tree, rest, ok = chase(p)
	}
	if !ok {
		return answer{}
	}
	r.follow = r.follow || strings.HasSuffix(p, "/")
	var n node
	var errno unix.Errno
	if tree == "dev" {
		if n, errno, ok = c.s.device(c, rest, r.follow, 0); !ok {
			return c.devFolder(what, rest)
		}
	} else {
		n, errno = c.s.resolve(c, rest, r.follow, 0)
		n.name = path.Join(rest...)
	}
	if errno != 0 {
		return failed(errno)
	}
	if n.pid != 0 && !c.s.own(n.pid) {
		return failed(unix.ENOENT)
	}
	return c.serve(what, r, n)
}

// devFolder makes /dev/pts look like what libraries look for; all else in /dev the step has itself.
func (c *caller) devFolder(what *pathCall, rest []string) answer {
	if what.op != opStatfs || rest[0] != "pts" {
		return answer{}
	}
	return c.statfs(what, unix.DEVPTS_SUPER_MAGIC)
}

// request is what a call asks for besides its path.
type request struct {
	flags  int    // of an open
	mode   uint32 // of an open that creates, of access and chmod
	follow bool   // a link at the path's end
}

// request reads the call's other arguments. It is not ok for those that the kernel has to judge: memory that is not
// there, and paths with rules of their own for links.
func (c *caller) request(what *pathCall) (r request, ok bool) {
	more := c.n.Args[what.more]
	r.follow = !what.nofollow
	switch what.op {
	case opOpen:
		r.flags, r.mode = int(int32(more)), uint32(c.n.Args[what.more+1])
	case opCreate:
		r.flags, r.mode = unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, uint32(more)
	case opOpen2:
		var how [24]byte
		if c.load(more, how[:]) != len(how) {
			return r, false
		}
		h := (*unix.OpenHow)(unsafe.Pointer(&how))
		if h.Resolve != 0 {
			return r, false
		}
		r.flags, r.mode = int(int32(h.Flags)), uint32(h.Mode)
	case opAccess, opChmod:
		r.mode = uint32(more)
	}
	if what.op <= opCreate && r.flags&(unix.O_NOFOLLOW|unix.O_EXCL) != 0 {
		r.follow = false
	}
	if what.flags >= 0 && c.n.Args[what.flags]&unix.AT_SYMLINK_NOFOLLOW != 0 {
		r.follow = false
	}
	return r, true
}

// serve does what the call asks for to the node.
func (c *caller) serve(what *pathCall, r request, n node) answer {
	switch what.op {
	case opOpen, opOpen2, opCreate:
		return c.open(r, n)
	case opStat, opLstat, opStatAt, opStatx:
		return c.stat(what, r, n)
	case opAccess:
		return c.access(r, n)
	case opReadlink:
		return c.linkText(what, n)
	case opExec:
		return c.exec(n)
	case opStatfs:
		if n.kind == termNode {
			return c.statfs(what, unix.DEVPTS_SUPER_MAGIC)
		}
		return c.statfs(what, unix.PROC_SUPER_MAGIC)
	case opChdir:
		return c.chdir(n)
	case opChmod, opChown:
		return c.change(what, r, n)
	}
	return failed(unix.EOPNOTSUPP)
}

// given is the answer that hands a descriptor over.
func given(fd int, r request) answer {
	return answer{done: true, file: fd, flags: uint32(r.flags & unix.O_CLOEXEC)}
}

// open opens the node for the caller.
func (c *caller) open(r request, n node) answer {
	flags := r.flags&^(unix.O_CREAT|unix.O_EXCL) | unix.O_CLOEXEC | unix.O_NOCTTY
	switch n.kind {
	case linkNode:
		if r.flags&unix.O_PATH == 0 {
			return failed(unix.ELOOP)
		}
		return failed(unix.EACCES)
	case tableNode:
		if r.flags&unix.O_ACCMODE != unix.O_RDONLY {
			return failed(unix.EACCES)
		}
		return c.table(r, n)
	case termNode:
		return c.openTerm(r, n)
	case rootNode:
		return c.openInRoot(r, n)
	case magicNode:
		return c.openThrough(flags, r, n)
	}
	if n.pid == 0 && (r.flags&unix.O_ACCMODE != unix.O_RDONLY || r.flags&unix.O_TRUNC != 0) {
		return failed(unix.EROFS)
	}
	var fd int
	err := c.as(func() (err error) {
		fd, err = c.s.open(n.path, flags)
		return err
	})
	if err != nil {
		return failed(errnoOf(err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		step.Closing(fd)
		return failed(errnoOf(err))
	}
	if n.pid != 0 && !c.s.own(n.pid) { // its number may have been another's when the file was opened
		step.Closing(fd)
		return failed(unix.ENOENT)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return given(fd, r)
	case unix.S_IFDIR:
		// The real folder would lead out, by calls that no filter can judge.
		step.Closing(fd)
		c.s.roaming.Store(true)
		stub, err := c.stubOf(n, true)
		if err != nil {
			return failed(errnoOf(err))
		}
		return given(stub, r)
	}
	step.Closing(fd)
	return failed(unix.EACCES)
}

// openThrough opens what a link of a process's folder leads to: something that the step has open, or its program.
func (c *caller) openThrough(flags int, r request, n node) answer {
	var fd int
	err := c.as(func() (err error) {
		fd, err = unix.Openat(c.s.proc, n.path, flags, r.mode&0o7777) // a mode for O_TMPFILE
		return err
	})
	if err != nil {
		return failed(errnoOf(err))
	}
	return given(fd, r)
}

// openInRoot opens a path in the root that is the step's and ours.
func (c *caller) openInRoot(r request, n node) answer {
	var fd int
	err := c.as(func() (err error) {
		fd, err = unix.Openat(unix.AT_FDCWD, n.path, r.flags|unix.O_CLOEXEC|unix.O_NOCTTY, r.mode&0o7777)
		return err
	})
	if err != nil {
		return failed(errnoOf(err))
	}
	return given(fd, r)
}

// table makes a list of mounts up: those of the step's process are the outer container's.
func (c *caller) table(r request, n node) answer {
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return failed(errnoOf(err))
	}
	device := fmt.Sprintf("%d:%d", unix.Major(root.Dev), unix.Minor(root.Dev))
	rows := [][3]string{{"/", "overlay", device}, {"/proc", "proc", "0:2"}, {"/dev", "tmpfs", "0:3"}, {"/dev/pts", "devpts", "0:4"}}
	var text strings.Builder
	for i, row := range rows {
		switch path.Base(n.path) {
		case "mounts":
			fmt.Fprintf(&text, "%s %s %s rw,relatime 0 0\n", row[1], row[0], row[1])
		case "mountinfo":
			fmt.Fprintf(&text, "%d %d %s / %s rw,relatime - %s %s rw\n", i+2, min(i, 1)+1, row[2], row[0], row[1], row[1])
		default:
			fmt.Fprintf(&text, "device %s mounted on %s with fstype %s\n", row[1], row[0], row[1])
		}
	}
	fd, err := unix.MemfdCreate(path.Base(n.path), unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return failed(errnoOf(err))
	}
	_, err = unix.Pwrite(fd, []byte(text.String()), 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		step.Closing(fd)
		return failed(errnoOf(err))
	}
	return given(fd, r)
}

// chdir lets the caller into a folder of /proc, which is made so that it is there.
func (c *caller) chdir(n node) answer {
	if n.kind != realNode {
		return failed(unix.EACCES)
	}
	fd, err := c.handle(request{follow: true}, n)
	if err != nil {
		return failed(errnoOf(err))
	}
	step.Closing(fd)
	c.s.roaming.Store(true)
	return answer{}
}

// exec lets the caller execute a program by a link of /proc, which is made where the kernel looks for it.
func (c *caller) exec(n node) answer {
	if n.kind != magicNode && n.kind != rootNode || n.name == "" || strings.Contains(n.name, "..") {
		return failed(unix.EACCES)
	}
	text := n.path
	if n.kind == magicNode {
		var errno unix.Errno
		if text, errno = c.s.readlink(c, n.path); errno != 0 {
			return failed(errno)
		}
	}
	if !strings.HasPrefix(text, "/") || strings.HasSuffix(text, " (deleted)") {
		return failed(unix.ENOENT)
	}
	if err := c.s.linkFor(n.name, text); err != nil {
		return failed(errnoOf(err))
	}
	return answer{}
}

// names lists what a folder of the outer /proc has, as far as the step sees it: names and the types of directory
// entries.
func (c *caller) names(n node) (map[string]uint32, error) {
	var fd int
	err := c.as(func() (err error) {
		fd, err = c.s.open(n.path, unix.O_RDONLY|unix.O_DIRECTORY)
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := list(fd)
	step.Closing(fd)
	if err != nil {
		return nil, err
	}
	if n.path != "" {
		at := components(n.path)
		maps.DeleteFunc(out, func(name string, _ uint32) bool { return n.pid != 0 && classify(append(at, name)) == refused })
		return out, nil
	}
	for name := range out {
		pid, ok := number(name)
		switch {
		case ok && c.s.own(pid), slices.Contains(common(), name), slices.Contains(links(), name):
		default:
			delete(out, name)
		}
	}
	return out, nil
}
