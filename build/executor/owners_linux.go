package executor

import (
	"errors"
	"os"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// Owners knows whose files are where only one id exists. Descriptors may be of O_PATH, and of whatever file a step can
// reach: on a read-only mount, of another file system, a device.
type Owners interface {
	// NotedAt says whose an open file is; one that nothing is known of is root's.
	NotedAt(fd int) (uid, gid uint32, err error)
	// NoteAt notes whose an open file is from now on; -1 leaves what is. Its errors are the kernel's for chown.
	NoteAt(fd int, uid, gid uint32) error
	// Attribute is the extended attribute that notes are kept in. Steps are not told that files have it.
	Attribute() string
	// Adopt notes that what was made below a step's root file system since a time, and of which nothing is noted, is
	// the user's of the step.
	Adopt(root string, since time.Time, uid, gid uint32) error
}

// tagOwners is the byte that comes with the descriptor from which a step's calls come that are about owners.
const tagOwners = 2

// handOwnersOver has the calls of this thread, and of what it becomes, that are about owners be answered by the engine;
// where the kernel has no room for that, since somebody outside is asked already, be answered with success.
func handOwnersOver(p *plan) error {
	if len(p.NoOwners) == 0 {
		return nil
	}
	if len(p.Owners) == 0 {
		return step.Setup(seccomp.Load(p.NoOwners, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW), "load filter of owners")
	}
	listener, err := seccomp.Listen(p.Owners)
	if errors.Is(err, unix.EBUSY) {
		return step.Setup(seccomp.Load(p.NoOwners, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW), "load filter of owners")
	}
	if err != nil {
		return step.Setup(err, "load filter of owners")
	}
	defer step.Closing(listener)
	return step.Setup(step.SendFile(tagOwners, listener), "hand owners over")
}

// ownersServer answers a step's calls about owners. It lives in the engine, and trusts no caller: a file is found
// through the caller's own root, folders and descriptors, and what is done to it is done through its own mount.
type ownersServer struct {
	owners   Owners
	calls    map[seccomp.Call]ownersCall
	listener int
	waits    func(n *seccomp.Notice) bool // whether a call still waits
}

// serveOwners answers until nobody is left who could ask.
func serveOwners(o Owners, listener *os.File) {
	defer listener.Close()
	s := &ownersServer{owners: o, calls: ownersCalls(), listener: int(listener.Fd())}
	s.waits = func(n *seccomp.Notice) bool { return seccomp.Waits(s.listener, n.ID) }
	seccomp.TakeTurns(s.listener)
	for {
		poll := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		_, err := unix.Poll(poll, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || poll[0].Revents&unix.POLLIN == 0: // POLLHUP
			return
		}
		n, errno := seccomp.Receive(s.listener)
		switch errno {
		case 0:
			s.reply(&n)
		case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
		default:
			return
		}
	}
}

// errGoOn has the kernel do what was called.
var errGoOn = errors.New("go on")

func (s *ownersServer) reply(n *seccomp.Notice) {
	answer := seccomp.Reply{ID: n.ID}
	switch result, err := s.answer(n); {
	case err == nil:
		answer.Val = result
	case errors.Is(err, errGoOn):
		answer.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	default:
		answer.Err = -int32(unix.EACCES)
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			answer.Err = -int32(errno)
		}
	}
	seccomp.Send(s.listener, answer)
}

// answer does what was called: nil is success, with what the call returns, errGoOn has the kernel do it.
func (s *ownersServer) answer(n *seccomp.Notice) (result int64, err error) {
	call, ok := s.calls[seccomp.Call{Arch: n.Arch, Nr: n.Nr}]
	if !ok {
		return 0, errGoOn
	}
	c := &ownersCaller{s: s, n: n}
	err = call.answer(c, call)
	return c.result, err
}

// chown notes an owner. A process may give its files to ids that are not there, and its -1 keeps what is.
func (c *ownersCaller) chown(call ownersCall) error {
	uid, gid := call.id(c.n.Args[call.more]), call.id(c.n.Args[call.more+1])
	fd, err := c.file(call)
	if err != nil {
		return c.unless(err)
	}
	defer step.Closing(fd)
	if !c.s.waits(c.n) {
		return unix.ESRCH
	}
	err = c.s.owners.NoteAt(fd, uid, gid)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) { // of /proc, /sys or /dev
		return nil
	}
	return err
}

// unless makes a success of a failure to find what another process's view of /proc or of a device is needed for.
func (c *ownersCaller) unless(err error) error {
	p := path.Clean(c.path)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) || strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/dev/") {
		return nil
	}
	return err
}

// stat tells of a file what the kernel does, but for the owner. Most files are root's, as they look.
func (c *ownersCaller) stat(call ownersCall) error {
	fd, err := c.file(call)
	if err != nil {
		return errGoOn
	}
	defer step.Closing(fd)
	uid, gid, err := c.s.owners.NotedAt(fd)
	if err != nil || uid == 0 && gid == 0 {
		return errGoOn
	}
	if call.statx {
		var st unix.Statx_t
		const kept = unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|int(c.n.Args[2])&kept, int(uint32(c.n.Args[3])), &st); err != nil {
			return errGoOn
		}
		st.Uid, st.Gid = uid, gid
		return c.store(c.n.Args[call.more], unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errGoOn
	}
	st.Uid, st.Gid = uid, gid
	return c.store(c.n.Args[call.more], unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)))
}
