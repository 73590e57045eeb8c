package executor

import (
	"errors"
	"syscall"

	"github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/cgroup"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// NotDelegatedError says that steps can't be limited here: this process may not divide the control group that it is in.
type NotDelegatedError = cgroup.NotDelegatedError

// LimitsPossible says whether steps can have limits below the control group parent ("": that of this process): it makes
// a group that has them, and takes it away again. The error is a *NotDelegatedError, or says what else is wrong.
func LimitsPossible(parent string, limits *pb.LinuxResources) error {
	g, err := cgroup.New("probe", parent, limits)
	if err != nil {
		return err
	}
	return g.Close()
}

// group is the control group of a step; the zero value is none, for a step without limits.
type group struct{ *cgroup.Group }

func newGroup(id string, meta executor.Meta) (group, error) {
	if meta.LinuxResources == nil && meta.CgroupParent == "" {
		return group{}, nil
	}
	g, err := cgroup.New(id, meta.CgroupParent, meta.LinuxResources)
	return group{g}, step.Setup(err, "limit step")
}

func (g group) add(pid int) error {
	if g.Group == nil {
		return nil
	}
	return step.Setup(g.Add(pid), "limit step")
}

// explain has an exit code say that the memory was used up.
func (g group) explain(err error) error {
	var exit *gatewayapi.ExitError
	if g.Group != nil && errors.As(err, &exit) && exit.ExitCode == 128+uint32(syscall.SIGKILL) && g.OutOfMemory() {
		exit.Err = unix.ENOMEM
	}
	return err
}

func (g group) close() {
	if g.Group != nil {
		_ = g.Close() // the next engine sweeps what is left
	}
}
