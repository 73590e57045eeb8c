package executor

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/selinux"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// start runs a planned step to its end. started is called with the first process's pid once its own program runs.
func (e *stepExecutor) start(ctx context.Context, p *plan, g group, info executor.ProcessInfo, started func(pid int)) error {
	var held heldFiles
	defer held.close()
	return step.Run(ctx, info, p, e.pipeFor(p), func(stdio []*os.File) (*step.Child, error) {
		c, err := e.spawnFor(p, stdio)
		if err != nil {
			return nil, err
		}
		c.Got = e.receiver(&held)
		if err := g.add(c.PID); err != nil {
			_ = c.Control.Close() // it waits for its plan, and ends without
			_, werr := c.Proc.Wait()
			return nil, errors.Join(err, werr)
		}
		return c, nil
	}, started)
}

// pipeFor is how the pipes of a step's streams are made.
func (e *stepExecutor) pipeFor(p *plan) func() (r, w *os.File, err error) {
	if p.SELinux.Process == "" {
		return os.Pipe
	}
	return func() (r, w *os.File, err error) { return selinux.Pipe(e.opts.Root) }
}

// spawnFor starts a child of its own namespaces, or one that joins those of a running step.
// In that case this thread, which is locked, is fit for nothing else afterwards.
func (e *stepExecutor) spawnFor(p *plan, stdio []*os.File) (*step.Child, error) {
	if p.Join == 0 || p.Supervise {
		return e.spawnMounted(p, stdio)
	}
	fd, err := unix.PidfdOpen(p.Join, 0)
	if err != nil {
		return nil, step.Setup(err, "open step")
	}
	joined := os.NewFile(uintptr(fd), "step")
	defer joined.Close()
	if err := enterPIDNamespace(p.Join); err != nil {
		return nil, err
	}
	return e.spawn(p, append(stdio, joined))
}

// spawn starts this program as InitArg0. The new process waits for its plan.
func (e *stepExecutor) spawn(p *plan, files []*os.File) (*step.Child, error) {
	self, err := e.self()
	if err != nil {
		return nil, err
	}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: p.CloneFlags}
	switch {
	case p.Supervise: // it has to outlive us for the moment that killing the tree takes
		sys.Pdeathsig, sys.Cloneflags = 0, 0
	case p.Join != 0:
		// Go would take a parent that this pid namespace can't see for a dead one. The child sets it itself.
		sys.Pdeathsig = 0
	}
	mapIDs(sys)
	c, err := step.Spawn(self, InitArg0, files, sys)
	if err != nil {
		return nil, err
	}
	c.Lifeline = p.Supervise
	return c, nil
}

// receiver takes the descriptors that a step hands over; those that only have to stay open go to held.
func (e *stepExecutor) receiver(held *heldFiles) func(tag byte, f *os.File) {
	return func(tag byte, f *os.File) {
		if tag == tagOwners && e.opts.Owners != nil {
			go serveOwners(e.opts.Owners, f)
			return
		}
		*held = append(*held, f)
	}
}
