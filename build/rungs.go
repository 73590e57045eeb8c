//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/chroot"
	"github.com/wherry-oci/wherry/build/userns"
)

// Rung is one of the ways to build, which need fewer and fewer privileges.
type Rung struct {
	Letter    string // "a" to "f", the best first
	Name      string
	Isolation Isolation
	// Reason is why it can't be had here; nil if it can. It is a
	// [*userns.NotPermittedError], [*userns.NoRangeError], [*MaskedProcError],
	// [*NoChrootError], or what the kernel said.
	Reason error
}

// MaskedProcError says that an outer container hides parts of /proc, so that the kernel
// lets nobody in a user namespace mount another: steps see that container's processes.
type MaskedProcError struct{}

func (*MaskedProcError) Error() string { return "an outer container hides parts of /proc" }

// NoChrootError says why steps can't be run by chroot.
type NoChrootError struct {
	Reason string
	Hint   string // what helps, or "" where nothing is known
	Err    error  // a [*chroot.ImpossibleError]
}

func (e *NoChrootError) Error() string { return "steps can't be run by chroot: " + e.Reason }

// Unwrap returns what is missing.
func (e *NoChrootError) Unwrap() error { return e.Err }

// rungArg0 is os.Args[0] of a process that only tries whether it can mount.
const rungArg0 = "wherry-rung"

// procMasked is its exit code where no /proc can be mounted.
const procMasked = 3

// initRung says by its exit code what can be mounted in namespaces.
func initRung() {
	if _, _, err := userns.Enter(context.Background(), userns.Options{}); err != nil {
		os.Exit(1)
	}
	mountable, err := executor.ProcMountable()
	switch {
	case err != nil:
		os.Exit(1)
	case !mountable:
		os.Exit(procMasked)
	}
	os.Exit(0)
}

// Rungs tries each way to build, and leaves nothing of that behind. Builds take the
// first without a Reason. There is always one: the last, on which no steps can be run. It
// has to be called before Enter, which changes what there is.
func Rungs(ctx context.Context) ([]Rung, error) {
	rungs := []Rung{
		{Letter: "a", Name: "root with a mount namespace", Isolation: IsolationNamespaces},
		{Letter: "b", Name: "user namespace with a range of ids", Isolation: IsolationNamespaces},
		{Letter: "c", Name: "user namespace with one id", Isolation: IsolationNamespaces},
		{Letter: "d", Name: "user namespace under a masked /proc", Isolation: IsolationNamespaces},
		{Letter: "e", Name: "chroot", Isolation: IsolationChroot, Reason: chrootPossible()},
		{Letter: "f", Name: "no RUN", Isolation: IsolationNone},
	}
	masked := errors.New("nothing hides /proc in a user namespace")
	for i, m := range []userns.Mapping{userns.None, userns.Range, userns.Single} {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		rungs[i].Reason = tryRung(ctx, m)
		if _, hidden := errors.AsType[*MaskedProcError](rungs[i].Reason); hidden {
			masked = nil
		}
	}
	if rungs[1].Reason != nil && rungs[2].Reason != nil && masked != nil {
		masked = rungs[2].Reason
	}
	rungs[3].Reason = masked
	return rungs, nil
}

// tryRung is why one can't build in namespaces with this mapping.
func tryRung(ctx context.Context, m userns.Mapping) error {
	code, err := userns.Try(ctx, m, []string{rungArg0})
	switch {
	case err != nil:
		return err
	case code == procMasked:
		return &MaskedProcError{}
	case code != 0:
		return fmt.Errorf("a process in the namespaces failed with exit code %d", code)
	}
	return nil
}

// chrootPossible is why steps can't be run by chroot here.
func chrootPossible() error {
	err := chroot.Possible()
	if err == nil {
		return nil
	}
	if os.Geteuid() != 0 {
		return &NoChrootError{Reason: "only root may", Hint: "docker run --user root ...", Err: err}
	}
	return &NoChrootError{Reason: err.Error(), Err: err}
}
