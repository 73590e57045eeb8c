package executor

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// InitArg0 is os.Args[0] of the re-executed child that becomes a step. A program that uses this package must call
// Init before anything else when it finds itself under this name.
const InitArg0 = "wherry-init"

// Options configure an executor. Root and Networks are required, the rest may stay zero.
type Options struct {
	// Root is a folder for bundles, resolv.conf and hosts. It is made, with mode 0711, where it is missing.
	Root string
	// Rootless says that this process is root of a user namespace only: no resource limits, no /sys in a step.
	Rootless bool
	// SingleID says that only id 0 is mapped: a step runs as id 0 whatever its USER says, and its set*id calls are
	// answered with success and do nothing.
	SingleID bool
	// Owners keeps, with SingleID, the owners that a step gives to files, and tells the step of them. Without it chown
	// is answered with success and does nothing.
	Owners Owners
	// HostPID shares the pid namespace and /proc of this process with a step. It is for places where the kernel
	// refuses a new procfs (ProcMountable says so); a step can then see and signal outer processes of its user.
	HostPID bool
	// Networks holds a provider for each network mode that a step may ask for.
	Networks map[pb.NetMode]network.Provider
	// DNS overrides parts of the host's resolv.conf; nil leaves it as it is.
	DNS *oci.DNSConfig
	// Domain is that of SELinux for steps, whose root file systems have its label already; nil is that of this process.
	Domain *Domain
	// OwnProfile has steps keep the AppArmor profile of this process, if any.
	OwnProfile bool
}

// stepExecutor is the executor.Executor of this package. It is safe for concurrent use.
type stepExecutor struct {
	opts Options
	self func() (*os.File, error) // a handle to our own binary through which nothing can be written

	appArmor func() string            // the profile of steps
	formats  func() ([]string, error) // of programs, for steps alone; nil: the host's

	running step.Running[*runningStep]
}

// runningStep is one running step, as Exec needs to know it.
type runningStep struct {
	rootfs string
	pid    int
	plan   *plan
	group  group
}

// New returns an executor that needs no container runtime. It fails only if o.Root can't be made.
func New(o Options) (executor.Executor, error) {
	var err error
	if o.Root, err = step.MakeFolder(o.Root); err != nil {
		return nil, fmt.Errorf("executor folder: %w", err)
	}
	if o.SingleID {
		if err := writeAptSetting(o.Root); err != nil {
			return nil, fmt.Errorf("make executor folder: %w", err)
		}
	}
	if err := o.Domain.LabelFolder(o.Root); err != nil {
		return nil, err
	}
	return &stepExecutor{opts: o, self: sync.OnceValues(step.OpenSelf), appArmor: sync.OnceValue(AppArmorProfile)}, nil
}

// Run starts a step and waits for its end. A step that could not be set up gives a *SetupError, one that ended with a
// code outside of ValidExitCodes (nil: only 0) a *gatewayapi.ExitError, behind
// which errors.Is finds ENOMEM if a limit on memory has ended it. The Recorder is always nil: nothing is sampled.
func (e *stepExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	st := &runningStep{}
	return nil, e.running.Do(id, st, started, func(id string, runs func()) (err error) {
		if st.group, err = newGroup(id, p.Meta); err != nil {
			return err
		}
		defer st.group.close()
		err = e.withBundle(ctx, id, root, mounts, p.Meta, func(b *bundle) error {
			st.rootfs, st.plan = b.rootfs, b.plan
			return e.start(ctx, b.plan, st.group, p, func(pid int) {
				st.pid = pid
				runs()
			})
		})
		return st.group.explain(err)
	})
}
