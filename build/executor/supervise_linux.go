package executor

import (
	"encoding/gob"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// supervise stands between the engine and a step that shares its pid namespace, where no kernel ends the step's
// children with it: as their reaper it kills all that is left when the step's first process has ended, or when the
// control socket closes because the engine wants the step to end or has died itself. It returns the exit code.
func supervise(p *plan) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		step.Fail(step.Setup(err, "become reaper of step"))
	}
	pid, r, err := startSupervised(p)
	if err != nil {
		step.Fail(err)
	}
	if r.Msg != "" {
		step.Send(r)
		step.Reap(os.DirFS("/proc"), pid)
		return step.InitFailed
	}
	step.Send(step.Report{Pid: pid})
	// The end of our step.Reports tells the engine that the step runs; its own end of the socket stays as the lifeline.
	_ = unix.Shutdown(step.ControlFD, unix.SHUT_WR)
	go func() {
		step.AwaitEnd()
		_ = unix.Kill(pid, unix.SIGKILL) // Reap does the rest
	}()
	return step.Reap(os.DirFS("/proc"), pid)
}

// startSupervised starts the step's init with a control socket of its own, and returns what it reported: nothing, if
// the step runs.
func startSupervised(p *plan) (pid int, r step.Report, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, r, step.Setup(err, "make control socket")
	}
	inner := *p
	inner.Supervise = false
	files := []uintptr{0, 1, 2, uintptr(pair[1])}
	if p.Join != 0 {
		pidfd, err := unix.PidfdOpen(p.Join, 0)
		if err != nil {
			return 0, r, step.Setup(err, "open step")
		}
		defer step.Closing(pidfd)
		files = append(files, uintptr(pidfd))
	}
	if p.SysFS {
		files = append(files, sysFD)
	}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: p.CloneFlags}
	mapIDs(sys)
	pid, err = syscall.ForkExec("/proc/self/exe", []string{InitArg0}, &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	step.Closing(pair[1])
	if err != nil {
		return 0, r, step.Setup(err, "start step's namespaces")
	}
	control := os.NewFile(uintptr(pair[0]), "control")
	c := &step.Child{Control: control}
	if err := gob.NewEncoder(control).Encode(inner); err != nil {
		return 0, r, step.Setup(err, "start step")
	}
	var console *os.File
	var handing error
	got, err := c.Receive(func(tag byte, f *os.File) {
		if tag == step.TagConsole {
			console = f
			return
		}
		handing = errors.Join(handing, step.SendFile(tag, int(f.Fd())), f.Close())
	})
	if err != nil {
		return 0, r, step.Setup(err, "start step")
	}
	if handing != nil {
		return 0, r, step.Setup(handing, "hand a descriptor over")
	}
	if got != nil {
		r = *got
	}
	if console != nil {
		if err := step.SendFile(step.TagConsole, int(console.Fd())); err != nil {
			return 0, r, step.Setup(err, "hand terminal over")
		}
	}
	return pid, r, nil
}
