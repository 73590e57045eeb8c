package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
)

// InitArg0 is os.Args[0] of the re-executed child that sets up a step.
const InitArg0 = "wherry-init"

// Options configure an executor. Root and Networks are required.
type Options struct {
	// Root is a folder for bundles, resolv.conf and hosts; made with mode 0711 if it is missing.
	Root string
	// Rootless says that this process is root of a user namespace only: no cgroups, no /sys.
	Rootless bool
	// SingleID says that only id 0 is mapped: chown and set*id of a step are answered with success and do nothing.
	SingleID bool
	// HostPID shares the pid namespace and /proc with the step, for where no new procfs may be mounted.
	HostPID bool
	// Networks holds what a step may ask for with --network.
	Networks map[pb.NetMode]network.Provider
	// DNS overrides parts of the host's resolv.conf; nil leaves it as it is.
	DNS *oci.DNSConfig
}

type stepExecutor struct {
	opts Options

	mu      sync.Mutex
	running map[string]*step
}

type step struct{}

// New returns an executor that runs steps in namespaces made by this process, without a container runtime.
func New(o Options) (executor.Executor, error) {
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("make executor folder: %w", err)
	}
	o.Root = root
	return &stepExecutor{opts: o, running: map[string]*step{}}, nil
}

func (e *stepExecutor) Run(context.Context, string, executor.Mount, []executor.Mount, executor.ProcessInfo, chan<- struct{}) (resourcestypes.Recorder, error) {
	return nil, errors.ErrUnsupported
}

func (e *stepExecutor) Exec(context.Context, string, executor.ProcessInfo) error {
	return errors.ErrUnsupported
}

// Init runs the child side: it sets up the namespaces from inside and becomes the step. It never returns.
func Init() { os.Exit(125) }
