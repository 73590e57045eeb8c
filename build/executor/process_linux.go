package executor

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"
)

// child is a started init process.
type child struct {
	proc     *os.Process
	control  *os.File // our end of the control socket
	step     int      // pid of the step's first process, as this process sees it
	lifeline bool     // the tree ends when control is closed, and not by a signal to proc
	console  *os.File // master side of the step's terminal; nil without one
}

// start runs a planned step to its end. started is called with the first process's pid once its own program runs.
func (e *stepExecutor) start(ctx context.Context, p *plan, info executor.ProcessInfo, started func(pid int)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stdio, err := newStdio(info)
	if err != nil {
		return err
	}
	defer stdio.close()
	// The death signal is sent when the thread that started the child ends, so that thread has to stay ours.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := e.spawnFor(p, stdio.files[:])
	stdio.closeChildEnds()
	if err != nil {
		return err
	}
	defer c.control.Close()
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	if err := c.handshake(p); err != nil {
		c.kill()
		_, werr := c.proc.Wait()
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), werr)
		}
		return errors.Join(err, werr)
	}
	if c.console != nil {
		stdio.attachConsole(c.console)
	}
	started(c.step)
	finish := c.relay(info, stdio)
	state, err := c.proc.Wait()
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

// spawnFor starts a child of its own namespaces, or one that joins those of a running step.
// In that case this thread, which is locked, is fit for nothing else afterwards.
func (e *stepExecutor) spawnFor(p *plan, stdio []*os.File) (*child, error) {
	if p.Join == 0 || p.Supervise {
		return e.spawn(p, stdio)
	}
	fd, err := unix.PidfdOpen(p.Join, 0)
	if err != nil {
		return nil, setup(err, "open step")
	}
	step := os.NewFile(uintptr(fd), "step")
	defer step.Close()
	if err := enterPIDNamespace(p.Join); err != nil {
		return nil, err
	}
	return e.spawn(p, stdio, step)
}

// spawn starts this program as InitArg0. The new process waits for its plan.
func (e *stepExecutor) spawn(p *plan, stdio []*os.File, extra ...*os.File) (*child, error) {
	self, err := e.self()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, setup(err, "make control socket")
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	attr := &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: append(append(append([]*os.File{}, stdio...), theirs), extra...),
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: p.CloneFlags},
	}
	switch {
	case p.Supervise: // it has to outlive us for the moment that killing the tree takes
		attr.Sys.Pdeathsig, attr.Sys.Cloneflags = 0, 0
	case p.Join != 0:
		// Go would take a parent that this pid namespace can't see for a dead one. The child sets it itself.
		attr.Sys.Pdeathsig = 0
	}
	proc, err := os.StartProcess(fdPath(int(self.Fd())), []string{InitArg0}, attr)
	if err != nil {
		return nil, errors.Join(setup(startError(err), "start step's namespaces"), ours.Close())
	}
	return &child{proc: proc, control: ours, step: proc.Pid, lifeline: p.Supervise}, nil
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
func (c *child) kill() {
	if c.lifeline {
		_ = unix.Shutdown(int(c.control.Fd()), unix.SHUT_WR) // the other way may still bring a report
		return
	}
	_ = c.proc.Kill() // it may have ended already
}

// handshake hands the plan over and waits until the step's program runs or could not be run.
func (c *child) handshake(p *plan) error {
	// A child that has died already tells more on the other way of the socket.
	sendErr := gob.NewEncoder(c.control).Encode(p)
	r, master, err := c.receive()
	c.console = master
	switch {
	case err != nil:
		return fmt.Errorf("start step: %w", err)
	case r != nil && r.Msg != "":
		return r.err()
	case sendErr != nil:
		return fmt.Errorf("start step: %w", sendErr)
	case r != nil:
		c.step = r.Pid
	}
	return nil
}

func (r *report) err() error {
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

// receive reads from the child until its end of the socket is closed, which execve does. No report means success.
func (c *child) receive() (r *report, console *os.File, err error) {
	var data []byte
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(int(c.control.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ECONNRESET) { // it ended without reading its plan: its exit status says more
			n, err = 0, nil
		}
		if err != nil {
			return nil, console, err
		}
		if f := receivedFile(oob[:oobn]); f != nil {
			console = f
		}
		if n == 0 {
			break
		}
		data = append(data, buf[:n]...)
	}
	data = bytes.TrimLeft(data, "\x00") // the byte that carried a descriptor
	if len(data) == 0 {
		return nil, console, nil
	}
	r = &report{}
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(r); err != nil && !errors.Is(err, io.EOF) {
		return nil, console, err
	}
	return r, console, nil
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

// exitCode is the step's exit code, 128+n if signal n ended it.
func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// relay passes signals and window sizes on until the returned function is called.
func (c *child) relay(info executor.ProcessInfo, stdio *stdio) (finish func()) {
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
func (c *child) signal(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGKILL:
		c.kill()
	case c.lifeline:
		_ = syscall.Kill(c.step, sig)
	default:
		_ = c.proc.Signal(sig)
	}
}
