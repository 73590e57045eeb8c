package executor

import (
	"bytes"
	"encoding/gob"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// supervise stands between the engine and a step that shares its pid namespace, where no kernel ends the step's
// children with it: as their reaper it kills all that is left when the step's first process has ended, or when the
// control socket closes because the engine wants the step to end or has died itself. It returns the exit code.
func supervise(p *plan) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fail(setup(err, "become reaper of step"))
	}
	pid, r, err := startSupervised(p)
	if err != nil {
		fail(err)
	}
	if r.Msg != "" {
		send(r)
		reap(pid)
		return initFailed
	}
	send(report{Pid: pid})
	// The end of our reports tells the engine that the step runs; its own end of the socket stays as the lifeline.
	_ = unix.Shutdown(controlFD, unix.SHUT_WR)
	go func() {
		for {
			n, err := unix.Read(controlFD, make([]byte, 1))
			if n > 0 || errors.Is(err, unix.EINTR) {
				continue
			}
			_ = unix.Kill(pid, unix.SIGKILL) // reap does the rest
			return
		}
	}()
	return reap(pid)
}

// startSupervised starts the step's init with a control socket of its own, and returns what it reported: nothing, if
// the step runs.
func startSupervised(p *plan) (pid int, r report, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, r, setup(err, "make control socket")
	}
	inner := *p
	inner.Supervise = false
	files := []uintptr{0, 1, 2, uintptr(pair[1])}
	if p.Join != 0 {
		step, err := unix.PidfdOpen(p.Join, 0)
		if err != nil {
			return 0, r, setup(err, "open step")
		}
		defer closing(step)
		files = append(files, uintptr(step))
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{InitArg0}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: p.CloneFlags},
	})
	closing(pair[1])
	if err != nil {
		return 0, r, setup(err, "start step's namespaces")
	}
	control := os.NewFile(uintptr(pair[0]), "control")
	c := &child{control: control}
	if err := gob.NewEncoder(control).Encode(inner); err != nil {
		return 0, r, setup(err, "start step")
	}
	got, console, err := c.receive()
	if err != nil {
		return 0, r, setup(err, "start step")
	}
	if got != nil {
		r = *got
	}
	if console != nil {
		if err := unix.Sendmsg(controlFD, []byte{0}, unix.UnixRights(int(console.Fd())), nil, 0); err != nil {
			return 0, r, setup(err, "hand terminal over")
		}
	}
	return pid, r, nil
}

// reap waits for the first process, then kills and waits for all others, also those that were orphaned to us.
func reap(first int) (code int) {
	ended := false
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // ECHILD: nobody is left
			return code
		case pid == first:
			ended, code = true, ws.ExitStatus()
			if ws.Signaled() {
				code = 128 + int(ws.Signal())
			}
		}
		if ended {
			killDescendants()
		}
	}
}

// killDescendants kills every process below this one. A process that forks meanwhile is met again: its child comes to
// us when it dies, and every death is followed by another look.
func killDescendants() {
	parents := parentsOfAll()
	for pid := range parents {
		if descends(pid, os.Getpid(), parents) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone by now
		}
	}
}

func descends(pid, from int, parents map[int]int) bool {
	for range len(parents) {
		parent, ok := parents[pid]
		if !ok || parent == from {
			return ok
		}
		pid = parent
	}
	return false
}

// parentsOfAll reads the parent of every process from /proc.
func parentsOfAll() map[int]int {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	out := make(map[int]int, len(files))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state ppid ...", and a name may hold anything.
		fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil || len(fields) < 2 {
			continue
		}
		if ppid, err := strconv.Atoi(string(fields[1])); err == nil {
			out[pid] = ppid
		}
	}
	return out
}
