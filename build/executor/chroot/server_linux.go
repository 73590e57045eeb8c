package chroot

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// maxServers is how many calls can be answered at once. An answer may have to wait: to open the one end of a fifo, for
// somebody at the other.
const maxServers = 64

// server answers the calls that the confinement filter sends. It lives in the step's supervisor, whose root is the
// step's own: a path that the step has had a hand in can't lead it anywhere else. What it needs from outside it has
// open.
//
// Every call is one of a process that it must not trust: a number may be stale by the time it is used, memory may
// change while it is looked at, and the kernel may be told to go on only with what the step may do anyway.
type server struct {
	listener int
	proc     int // the outer /proc
	dev      int // the outer /dev
	stubs    stubs
	calls    map[seccomp.Call]call
	standIns bool

	waits func(id uint64) bool // whether a call still waits

	me    int   // our pid, whose children are the step
	peers []int // other such supervisors
	first int   // the step's first process, which it knows as 1 as well

	roaming   atomic.Bool  // the step has a folder of /proc open, or is in one
	slowReads atomic.Bool  // process_vm_readv is forbidden
	console   atomic.Int64 // the number of the step's own terminal, plus 1
	running   atomic.Int32 // goroutines that serve
	idle      atomic.Int32 // those of them that have no call
}

// newServer opens what a server needs, while the process still has the outer root.
func newServer(rootfs step.RootDir, p *plan) (*server, error) {
	s := &server{listener: -1, calls: knownCalls(), standIns: p.StandIns, me: unix.Getpid(), peers: p.Peers}
	s.waits = func(id uint64) bool { return seccomp.Waits(s.listener, id) }
	var err error
	if s.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, step.Setup(err, "open /proc")
	}
	if s.dev, err = unix.Open("/dev", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, step.Setup(err, "open /dev")
	}
	if s.stubs.dir, err = rootfs.OpenHow("/proc", unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	}); err != nil {
		return nil, step.Setup(err, "open /proc of step")
	}
	return s, nil
}

// serve answers what comes from listener until nobody is left who could ask. broken is called if one of the answering
// goroutines fails in a way that it should not: the step must not be left without answers.
func (s *server) serve(listener int, broken func(any)) {
	s.listener = listener
	seccomp.TakeTurns(listener)
	s.start(broken)
}

// start starts one goroutine that serves, and that starts others when it would be the last to be idle.
func (s *server) start(broken func(any)) {
	if s.running.Add(1) > maxServers {
		s.running.Add(-1)
		return
	}
	go func() {
		defer func() {
			if r := recover(); r != nil {
				broken(r)
			}
		}()
		runtime.LockOSThread() // it changes its identity
		s.loop(func() { s.start(broken) })
	}()
}

func (s *server) loop(another func()) {
	for {
		s.idle.Add(1)
		n, errno := seccomp.Receive(s.listener)
		last := s.idle.Add(-1) == 0
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.ENOENT && s.asked(): // the caller was killed meanwhile
			continue
		case errno != 0:
			return
		}
		if last {
			another()
		}
		s.reply(&n, s.handle(&n))
	}
}

// asked says whether anybody is left who could ask.
func (s *server) asked() bool {
	poll := []unix.PollFd{{Fd: int32(s.listener)}}
	_, err := unix.Poll(poll, 0)
	return err != nil || poll[0].Revents&unix.POLLHUP == 0
}

// reply sends an answer. That the caller is gone by now is nothing to report.
func (s *server) reply(n *seccomp.Notice, a answer) {
	if a.done && a.errno == 0 && a.file != 0 {
		add := addFile{ID: n.ID, Flags: unix.SECCOMP_ADDFD_FLAG_SEND, SrcFD: uint32(a.file), NewFlags: a.flags}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&add)))
		step.Closing(a.file)
		if errno == 0 || errno == unix.ENOENT {
			return
		}
		a = failed(errno) // EMFILE, as a rule
	}
	r := seccomp.Reply{ID: n.ID, Val: a.val, Err: -int32(a.errno)}
	if !a.done {
		r.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	seccomp.Send(s.listener, r)
}

// handle finds the answer to a call.
func (s *server) handle(n *seccomp.Notice) answer {
	what, ok := s.calls[seccomp.Call{Arch: n.Arch, Nr: n.Nr}]
	switch {
	case !ok:
		return answer{}
	case what.path == nil:
		return s.atProcess(what, n)
	}
	c := &caller{s: s, n: n, tid: int(n.PID)}
	return c.answer(what.path)
}

// atProcess lets a call go on that is at one of the step's own processes. Its arguments are in registers, so they are
// what the kernel will see; others' processes are not there, as in a pid namespace.
func (s *server) atProcess(what call, n *seccomp.Notice) answer {
	pid := int(int32(n.Args[what.pid]))
	switch {
	case pid == 0:
		return answer{}
	case pid < 0 && what.kill && pid != -1:
		pid = -pid
	case pid < 0:
		return failed(unix.EPERM)
	}
	if !s.own(pid) {
		return failed(unix.ESRCH)
	}
	return answer{}
}

// own says whether pid is a process or thread of the step: below the supervisor, to which orphans come, and not it.
func (s *server) own(pid int) bool {
	for range 1 << 10 { // no step nests deeper
		if pid == s.me || pid <= 1 {
			return false
		}
		parent, ok := s.parent(pid)
		if !ok {
			return false
		}
		if parent == s.me {
			return true
		}
		for _, peer := range s.peers {
			if parent == peer {
				return true
			}
		}
		pid = parent
	}
	return false
}

func (s *server) parent(pid int) (int, bool) {
	data, err := s.read(strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	return step.ParentIn(data)
}

// read returns the beginning of a file of the outer /proc.
func (s *server) read(name string) ([]byte, error) {
	fd, err := s.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer step.Closing(fd)
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// knownFlags are those of an open that openat2 takes and that have a meaning in /proc; open(2) ignores what it does not
// know, and openat2 refuses it.
const knownFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_APPEND | unix.O_NONBLOCK | unix.O_DIRECTORY | unix.O_NOFOLLOW |
	unix.O_PATH | unix.O_LARGEFILE | unix.O_NOCTTY

// open opens a file of the outer /proc without following a link.
func (s *server) open(name string, flags int) (int, error) {
	if name == "" {
		name = "."
	}
	if flags&unix.O_PATH != 0 { // all that goes with it
		flags &= unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
	} else {
		flags |= unix.O_NOCTTY
	}
	return unix.Openat2(s.proc, name, &unix.OpenHow{
		Flags:   uint64(flags&knownFlags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// asUser calls f as another user of the file system, on this thread, which is locked: without CAP_SYS_PTRACE that is
// what may look into that user's processes, and it is no more than that user may do.
func asUser(uid, gid uint32, f func() error) error {
	if uid == 0 && gid == 0 {
		return f()
	}
	const none = ^uintptr(0) // no id: only asks
	defer func() {
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
		now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, none, 0, 0)
		group, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, none, 0, 0)
		if now != 0 || group != 0 {
			panic(errors.New("can't be root again"))
		}
	}()
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	is, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, none, 0, 0)
	group, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, none, 0, 0)
	if uint32(is) != uid || uint32(group) != gid {
		return fmt.Errorf("act as user %d: %w", uid, unix.EPERM)
	}
	return f()
}
