package chroot

import (
	"context"
	"fmt"
	"os"
	"syscall"

	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// plan is all that a step's supervisor and its first process need to know, as plain data: it goes through gob.
type plan struct {
	step.Process
	Rootfs string
	// Confinement is the filter that forbids what capabilities and Landlock leave open, and sends what the supervisor
	// answers to it.
	Confinement []unix.SockFilter
	Landlock    int // the ABI to use; 0: none
	// StandIns says that no devices could be made: the supervisor opens the outer ones for the step.
	StandIns bool
	// Peers are supervisors whose processes count as the step's own as well.
	Peers []int
	// Supervise is set for the supervisor, which unsets it for the step's first process.
	Supervise bool
}

// newPlan lets BuildKit write the OCI spec of a step without mounts and takes from it what makes a process.
func newPlan(ctx context.Context, id, rootfs string, meta executor.Meta, abi int) (*plan, error) {
	uid, gid, groups, err := oci.GetUser(rootfs, meta.User)
	if err != nil {
		return nil, fmt.Errorf("find user %q: %w", meta.User, err)
	}
	host, err := network.NewHostProvider().New(ctx, "", network.NamespaceOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = host.Close() }() // it has nothing to close
	opts := []containerdoci.SpecOpts{oci.WithUIDGID(uid, gid, groups)}
	spec, release, err := oci.GenerateSpec(ctx, meta, nil, id, "/dev/null", "/dev/null", host, "", oci.NoProcessSandbox, nil, "", false, "", nil, opts...)
	if err != nil {
		return nil, err
	}
	defer release()
	spec.Process.Terminal = meta.Tty
	p := &plan{Rootfs: rootfs, Landlock: abi}
	if p.Process, err = step.NewProcess(spec, false); err != nil {
		return nil, err
	}
	p.NoNewPrivs = true // or neither Landlock nor a filter may be used without CAP_SYS_ADMIN
	p.Caps = p.Caps.Within(stepCapabilities())
	if p.Confinement, err = seccomp.Compile(confinement(abi >= landlockScopes, meta.NetMode == pb.NetMode_NONE), false); err != nil {
		return nil, fmt.Errorf("confinement: %w", err)
	}
	return p, nil
}

// start runs a planned step, below a supervisor of its own, to its end. The supervisor keeps lock open.
func (e *chrootExecutor) start(ctx context.Context, p *plan, lock *os.File, info executor.ProcessInfo, started func(pid int)) error {
	supervised := *p
	supervised.Supervise = true
	return step.Run(ctx, info, &supervised, os.Pipe, func(stdio []*os.File) (*step.Child, error) {
		self, err := e.self()
		if err != nil {
			return nil, err
		}
		files := stdio
		if lock != nil {
			files = append(files, lock)
		}
		// It has to outlive us for the moment that killing the tree takes, so the death signal is not for it.
		c, err := step.Spawn(self, InitArg0, files, &syscall.SysProcAttr{Setsid: true})
		if err != nil {
			return nil, err
		}
		c.Lifeline = true
		return c, nil
	}, started)
}
