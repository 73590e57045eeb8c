package chroot

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// stat fills the caller's structure.
func (c *caller) stat(what *pathCall, r request, n node) answer {
	fd, err := c.handle(r, n)
	if err != nil {
		return failed(errnoOf(err))
	}
	defer step.Closing(fd)
	if what.op == opStatx {
		var st unix.Statx_t
		flags := int(c.n.Args[what.flags])&(unix.AT_STATX_FORCE_SYNC|unix.AT_STATX_DONT_SYNC) | unix.AT_EMPTY_PATH
		if err := unix.Statx(fd, "", flags, int(c.n.Args[what.more]), &st); err != nil {
			return failed(errnoOf(err))
		}
		return c.fill(c.n.Args[what.more+1], unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed(errnoOf(err))
	}
	return c.fill(c.n.Args[what.more], unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)))
}

func (c *caller) fill(addr uint64, data []byte) answer {
	if errno := c.store(addr, data); errno != 0 {
		return failed(errno)
	}
	return returned(0)
}

// handle returns an O_PATH descriptor of the node, with the caller's rights on the way to it.
func (c *caller) handle(r request, n node) (fd int, err error) {
	err = c.as(func() error {
		const flags = unix.O_PATH | unix.O_CLOEXEC
		switch n.kind {
		case linkNode:
			fd, err = unix.Openat(c.s.proc, n.path, flags|unix.O_NOFOLLOW, 0)
		case magicNode:
			fd, err = unix.Openat(c.s.proc, n.path, flags, 0)
		case rootNode:
			nofollow := 0
			if !r.follow {
				nofollow = unix.O_NOFOLLOW
			}
			fd, err = unix.Openat(unix.AT_FDCWD, n.path, flags|nofollow, 0)
		case termNode:
			fd, err = unix.Openat(c.s.dev, n.path, flags, 0)
		default:
			fd, err = c.s.open(n.path, unix.O_PATH)
		}
		return err
	})
	if err != nil || n.kind != realNode {
		return fd, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fd, err
	}
	// A folder has to be the same when it is opened.
	step.Closing(fd)
	return c.stubOf(n, false)
}

// access says what the caller may do with the node.
func (c *caller) access(r request, n node) answer {
	if r.mode&unix.W_OK != 0 && n.kind == realNode && n.pid == 0 {
		return failed(unix.EROFS)
	}
	dir, name, flags := c.s.proc, n.path, unix.AT_EACCESS
	switch n.kind {
	case rootNode:
		dir = unix.AT_FDCWD
	case termNode:
		dir = c.s.dev
	case linkNode:
		return returned(0)
	}
	if name == "" {
		name = "."
	}
	if err := c.as(func() error { return unix.Faccessat(dir, name, r.mode&7, flags) }); err != nil {
		return failed(errnoOf(err))
	}
	return returned(0)
}

// linkText reads a link.
func (c *caller) linkText(what *pathCall, n node) answer {
	text := n.text
	switch n.kind {
	case linkNode:
		if text == "" {
			var errno unix.Errno
			if text, errno = c.s.readlink(c, n.path); errno != 0 {
				return failed(errno)
			}
		}
	case rootNode:
		buf := make([]byte, maxPath)
		size := 0
		err := c.as(func() (err error) {
			size, err = unix.Readlink(n.path, buf)
			return err
		})
		if err != nil {
			return failed(errnoOf(err))
		}
		text = string(buf[:size])
	default:
		return failed(unix.EINVAL)
	}
	room := int(int32(c.n.Args[what.more+1]))
	if room <= 0 {
		return failed(unix.EINVAL)
	}
	data := []byte(text)[:min(room, len(text))]
	if errno := c.store(c.n.Args[what.more], data); errno != 0 {
		return failed(errno)
	}
	return returned(int64(len(data)))
}

// statfs says which file system it is; the rest is that of the outer /proc, which has no sizes either.
func (c *caller) statfs(what *pathCall, magic int64) answer {
	var st unix.Statfs_t
	if err := unix.Fstatfs(c.s.proc, &st); err != nil {
		return failed(errnoOf(err))
	}
	st.Type = magic
	return c.fill(c.n.Args[what.more], unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)))
}

// change sets the mode or owner of what a link leads to; what is really in /proc keeps its own.
func (c *caller) change(what *pathCall, r request, n node) answer {
	dir, name := c.s.proc, n.path
	switch n.kind {
	case magicNode:
	case rootNode:
		dir = unix.AT_FDCWD
	default:
		return failed(unix.EPERM)
	}
	err := c.as(func() error {
		if what.op == opChmod {
			return unix.Fchmodat(dir, name, r.mode&0o7777, 0)
		}
		return unix.Fchownat(dir, name, int(int32(c.n.Args[what.more])), int(int32(c.n.Args[what.more+1])), 0)
	})
	if err != nil {
		return failed(errnoOf(err))
	}
	return returned(0)
}
