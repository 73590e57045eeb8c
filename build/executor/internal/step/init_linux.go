package step

import (
	"encoding/gob"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ControlFD is where the child finds its end of the control socket: the plan comes in, reports go out, and execve
// closes it, which is how the parent learns that the step runs.
const ControlFD = 3

// InitFailed is the child's exit code when the step never ran; the parent goes by the report, not by this.
const InitFailed = 125

// TagConsole is the byte that comes with the master side of the step's terminal.
const TagConsole = 0

// Report is what the child has to say.
type Report struct {
	Op    string
	Msg   string
	Errno int // 0 where the reason is no errno
	Pid   int // from a supervisor: the step's first process
}

// Enter is how a process that Spawn has started begins: on a thread that it keeps, unseen by others, without the
// descriptors that were left open by mistake. It reads the plan.
func Enter(plan any) {
	runtime.LockOSThread()
	// Nobody but this process may look into it or trace it before the step's own image replaces ours.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	// Whoever started the build may have left descriptors open without close-on-exec (CVE-2024-21626).
	if err := unix.CloseRange(ControlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		Fail(Setup(err, "close inherited files"))
	}
	if err := gob.NewDecoder(control{}).Decode(plan); err != nil {
		os.Exit(InitFailed) // the parent is gone
	}
}

// Fail reports err (nil: no failure) and ends the process.
func Fail(err error) {
	var r Report
	if err != nil {
		r.Msg = err.Error()
		var s *SetupError
		if errors.As(err, &s) {
			r.Op, r.Msg = s.Op, s.Err.Error()
		}
		var errno unix.Errno
		if errors.As(err, &errno) {
			r.Errno = int(errno)
		}
	}
	Send(r)
	os.Exit(InitFailed)
}

// Send writes to the control socket. It can't fail in a way that anybody could be told of.
func Send(r Report) {
	_ = gob.NewEncoder(control{}).Encode(r)
}

// control is the control socket as a stream. It is no os.File: that would close the descriptor when it is collected.
type control struct{}

func (control) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(ControlFD, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (control) Write(p []byte) (done int, err error) {
	for done < len(p) {
		n, err := unix.Write(ControlFD, p[done:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return done, err
		}
		done += max(n, 0)
	}
	return done, nil
}

// AwaitEnd returns when the other side of the control socket is closed: the engine wants the step to end, or is dead.
func AwaitEnd() {
	_, _ = io.Copy(io.Discard, control{}) // an error is an end as well
}
