package step

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"
)

// Child is a started process of the executor: a step's first process before it becomes the step, or its supervisor.
type Child struct {
	Proc     *os.Process
	Control  *os.File // our end of the control socket
	PID      int      // of the step's first process, as this process sees it
	Lifeline bool     // the tree ends when Control is closed, and not by a signal to Proc

	// Got is told of the descriptors that come from the process before it is the step, but for the terminal's.
	Got func(tag byte, f *os.File)

	console *os.File // master side of the step's terminal; nil without one
}

// Run starts a planned step by spawn, hands it its plan (which goes through gob), and sees it to its end. Its streams are
// made by pipe, which is os.Pipe unless such pipes are nothing for the step. started is called with the first process's pid once its own program runs. The errors are those of executor.Executor's Run.
func Run(ctx context.Context, info executor.ProcessInfo, plan any, pipe func() (r, w *os.File, err error), spawn func(stdio []*os.File) (*Child, error), started func(pid int)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stdio, err := newStdio(info, pipe)
	if err != nil {
		return err
	}
	defer stdio.close()
	// The death signal is sent when the thread that started the child ends, so that thread has to stay ours.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := spawn(stdio.files[:])
	stdio.closeChildEnds()
	if err != nil {
		return err
	}
	defer c.Control.Close()
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	if err := c.Handshake(plan); err != nil {
		c.kill()
		_, werr := c.Proc.Wait()
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), werr)
		}
		return errors.Join(err, werr)
	}
	if c.console != nil {
		stdio.attachConsole(c.console)
	}
	started(c.PID)
	finish := c.relay(info, stdio)
	state, err := c.Proc.Wait()
	finish()
	if err != nil {
		return fmt.Errorf("wait for step: %w", err)
	}
	copyErr := stdio.wait()
	if err := exitError(ctx, exitCode(state), info.Meta.ValidExitCodes); err != nil {
		return err
	}
	if copyErr != nil {
		return fmt.Errorf("copy output of step: %w", copyErr)
	}
	return nil
}

// Spawn starts the binary self again under the name arg0, with files as its first descriptors and a control socket as
// ControlFD (files beyond the third come after it). The new process waits for its plan.
func Spawn(self *os.File, arg0 string, files []*os.File, sys *syscall.SysProcAttr) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, Setup(err, "make control socket")
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	attr := &os.ProcAttr{Dir: "/", Env: []string{}, Files: slices.Insert(slices.Clone(files), ControlFD, theirs), Sys: sys}
	proc, err := os.StartProcess(FDPath(int(self.Fd())), []string{arg0}, attr)
	if err != nil {
		return nil, errors.Join(Setup(startError(err), "start step's namespaces"), ours.Close())
	}
	return &Child{Proc: proc, Control: ours, PID: proc.Pid}, nil
}

// startError keeps the errno of a failed start and drops the path, which is a descriptor of ours.
func startError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// kill ends the step and everything that it has started: with the first process the kernel ends its pid namespace.
func (c *Child) kill() {
	if c.Lifeline {
		_ = unix.Shutdown(int(c.Control.Fd()), unix.SHUT_WR) // the other way may still bring a report
		return
	}
	_ = c.Proc.Kill() // it may have ended already
}

// Handshake hands the plan over and waits until the step's program runs or could not be run.
func (c *Child) Handshake(plan any) error {
	// A child that has died already tells more on the other way of the socket.
	sendErr := gob.NewEncoder(c.Control).Encode(plan)
	r, err := c.Receive(func(tag byte, f *os.File) {
		if tag != TagConsole && c.Got != nil {
			c.Got(tag, f)
			return
		}
		c.console = f
	})
	switch {
	case err != nil:
		return fmt.Errorf("start step: %w", err)
	case r != nil && r.Msg != "":
		return r.err()
	case sendErr != nil:
		return fmt.Errorf("start step: %w", sendErr)
	case r != nil:
		c.PID = r.Pid
	}
	return nil
}

func (r *Report) err() error {
	s := &SetupError{Op: r.Op, Err: errors.New(r.Msg)}
	if s.Op == "" {
		s.Op = "set up step"
	}
	switch errno := syscall.Errno(r.Errno); {
	case errno == unix.ENOSYS: // openat2, open_tree, mount_setattr
		s.Err = fmt.Errorf("%w: steps need Linux 5.12 or newer", errno)
	case errno != 0:
		s.Err = &remoteError{msg: r.Msg, errno: errno}
	}
	return s
}

// remoteError has the text of an error in the child and the errno behind it.
type remoteError struct {
	msg   string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.msg }
func (e *remoteError) Unwrap() error { return e.errno }

// Receive reads from the child until its end of the socket is closed, which execve does. No report means success.
// got is called with each descriptor that comes meanwhile, and the byte that it came with.
func (c *Child) Receive(got func(tag byte, f *os.File)) (*Report, error) {
	var data []byte
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(int(c.Control.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) { // it ended without reading its plan: its exit status says more
			n, err = 0, nil
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		if f := receivedFile(oob[:oobn]); f != nil {
			got(buf[0], f)
			buf[0] = TagConsole
		}
		data = append(data, buf[:n]...)
	}
	data = bytes.TrimLeft(data, "\x00") // the bytes that carried a descriptor
	if len(data) == 0 {
		return nil, nil
	}
	r := &Report{}
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(r); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return r, nil
}

func receivedFile(oob []byte) *os.File {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "/dev/ptmx")
}

// SendFile hands a descriptor to the parent.
func SendFile(tag byte, fd int) error {
	return unix.Sendmsg(ControlFD, []byte{tag}, unix.UnixRights(fd), nil, 0)
}

// exitCode is the step's exit code, 128+n if signal n ended it.
func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// relay passes signals and window sizes on until the returned function is called.
func (c *Child) relay(info executor.ProcessInfo, stdio *stdio) (finish func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		signals, sizes := info.Signal, info.Resize
		for {
			select {
			case <-end:
				return
			case sig, ok := <-signals:
				if !ok {
					signals = nil
					continue
				}
				c.signal(sig)
			case size, ok := <-sizes:
				if !ok {
					sizes = nil
					continue
				}
				stdio.resize(size)
			}
		}
	}()
	return func() { close(end); <-ended }
}

// signal passes one signal on. A step that has ended meanwhile needs none.
func (c *Child) signal(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGKILL:
		c.kill()
	case c.Lifeline:
		_ = syscall.Kill(c.PID, sig)
	default:
		_ = c.Proc.Signal(sig)
	}
}
