package chroot

import (
	"encoding/gob"
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// supervise stands between the engine and a step: where no namespace ends its processes, it is their reaper and kills
// all that is left when the step's first process has ended, or when the control socket closes because the engine wants
// the step to end or has died itself. It also answers what the confinement filter sends. It returns the exit code.
func supervise(p *plan) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		step.Fail(step.Setup(err, "become reaper of step"))
	}
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		step.Fail(step.Setup(err, "open /proc"))
	}
	s, c, err := startFirst(p)
	if err != nil {
		step.Fail(err)
	}
	// What is left of this function may meet a panic or an end that it does not expect: the tree must not survive it.
	kill := func() { _ = unix.Kill(c.PID, unix.SIGKILL) } // Reap does the rest
	r, err := s.handshake(p, c, kill)
	if err != nil {
		kill()
		r = &step.Report{Op: "start step", Msg: err.Error()}
	}
	if r != nil {
		step.Send(*r)
		step.Reap(proc.FS(), c.PID)
		return step.InitFailed
	}
	step.Send(step.Report{Pid: c.PID})
	// The end of our reports tells the engine that the step runs; its own end of the socket stays as the lifeline.
	_ = unix.Shutdown(step.ControlFD, unix.SHUT_WR)
	go func() {
		step.AwaitEnd()
		kill()
	}()
	return step.Reap(proc.FS(), c.PID)
}

// startFirst starts what becomes the step's first process, and then takes the step's root and fewer rights.
func startFirst(p *plan) (*server, *step.Child, error) {
	rootfs, err := step.OpenRootDir(p.Rootfs)
	if err != nil {
		return nil, nil, step.Setup(err, "open root file system")
	}
	s, err := newServer(rootfs, p)
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, nil, step.Setup(err, "open our own binary")
	}
	defer self.Close()
	c, err := step.Spawn(self, InitArg0, []*os.File{os.Stdin, os.Stdout, os.Stderr}, &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}) //nolint:forbidigo // they are the step's
	if err != nil {
		return nil, nil, err
	}
	s.first = c.PID
	if err := errors.Join(unix.Fchdir(rootfs.FD), unix.Chroot("."), giveUpRights()); err != nil {
		return nil, nil, errors.Join(step.Setup(err, "enter root file system"), c.Proc.Kill())
	}
	return s, c, nil
}

// giveUpRights leaves all threads of this process what a supervisor needs.
func giveUpRights() error {
	had, err := step.Permitted()
	if err != nil {
		return err
	}
	keep := had & supervisorCapabilities()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// handshake hands the plan on, serves the step from when it asks, and returns what the child has reported: nothing, if
// the step runs.
func (s *server) handshake(p *plan, c *step.Child, broken func()) (*step.Report, error) {
	inner := *p
	inner.Supervise = false
	if err := gob.NewEncoder(c.Control).Encode(inner); err != nil {
		return nil, err
	}
	var failure error
	r, err := c.Receive(func(tag byte, f *os.File) {
		if tag == tagListener {
			// The descriptor stays open for as long as this process lives.
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err == nil {
				s.serve(fd, func(any) { broken() })
			}
			failure = errors.Join(failure, err, f.Close())
			return
		}
		failure = errors.Join(failure, s.adopt(int(f.Fd())), step.SendFile(step.TagConsole, int(f.Fd())), f.Close())
	})
	return r, errors.Join(err, failure)
}
