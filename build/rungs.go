//go:build linux

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/util/archutil"

	"github.com/wherry-oci/wherry/build/engine"
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
	// Profile is that of AppArmor that steps get there; "" if they keep that of this process.
	Profile string
	// Label is the type of SELinux that steps get there (container_t); "" if they keep that of this process, where
	// SELinux is in force for the reason in NoLabel: a [*NotLabelledError].
	Label   string
	NoLabel error
	rungFacts
}

// rungFacts are what was found on a rung that can be had.
type rungFacts struct {
	Overlay   bool          // snapshots are layers of overlayfs; else folders
	Proc      bool          // a step has a /proc of its own
	Platforms []v1.Platform // whose programs run there, by the processor or a registered emulator
	// NoEmulation is why no others can be run by emulators of wherry's own; "" if they can.
	NoEmulation string
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

// initRung writes what it finds in namespaces to the file that is its second argument. The
// first is the folder in which overlayfs is tried.
func initRung() {
	if _, _, err := userns.Enter(context.Background(), userns.Options{}); err != nil || len(os.Args) != 3 {
		os.Exit(1)
	}
	proc, err := executor.ProcMountable()
	if err != nil {
		os.Exit(1)
	}
	found := rungFacts{Proc: proc, Overlay: engine.TakesOverlay(engine.Options{Dir: os.Args[1], SingleID: userns.Current() == userns.Single}), Platforms: runnable()}
	if err := executor.FormatsWork(context.Background(), !proc); err != nil {
		found.NoEmulation = err.Error()
	}
	text, err := json.Marshal(found)
	if err != nil || os.WriteFile(os.Args[2], text, 0o600) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// runnable are the platforms whose programs run here; found by running one of each.
func runnable() []v1.Platform {
	var list []v1.Platform
	for _, p := range archutil.SupportedPlatforms(true) {
		list = append(list, v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
	}
	return list
}

// Rungs tries each way to build in the folder dir, which exists, and leaves nothing of that
// behind. Builds take the first without a Reason. There is always one: the last, on which
// no steps can be run. It has to be called before Enter, which changes what there is.
func Rungs(ctx context.Context, dir string) ([]Rung, error) {
	rungs := []Rung{
		{Letter: "a", Name: "root with a mount namespace", Isolation: IsolationNamespaces},
		{Letter: "b", Name: "user namespace with a range of ids", Isolation: IsolationNamespaces},
		{Letter: "c", Name: "user namespace with one id", Isolation: IsolationNamespaces},
		{Letter: "d", Name: "user namespace under a masked /proc", Isolation: IsolationNamespaces},
		{Letter: "e", Name: "chroot", Isolation: IsolationChroot, Reason: chrootPossible()},
		{Letter: "f", Name: "no RUN", Isolation: IsolationNone},
	}
	rungs[0].Profile = executor.AppArmorProfile()
	d := &rungs[3]
	d.Reason = errors.New("nothing hides /proc in a user namespace")
	for i, m := range []userns.Mapping{userns.None, userns.Range, userns.Single} {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r := &rungs[i]
		if r.rungFacts, r.Reason = tryRung(ctx, m, dir); r.Reason == nil && !r.Proc {
			r.Reason = &MaskedProcError{}
			if d.Reason != nil {
				d.rungFacts, d.Reason = r.rungFacts, nil
			}
		}
	}
	for i := range rungs[:4] {
		if err := rungs[i].findLabel(dir, i > 0); err != nil {
			return nil, err
		}
	}
	if rungs[1].Reason != nil && rungs[2].Reason != nil && d.Reason != nil {
		d.Reason = rungs[2].Reason
	}
	if rungs[4].Reason == nil {
		rungs[4].Platforms, rungs[4].NoEmulation = runnable(), "with this isolation there are no namespaces"
	}
	return rungs, nil
}

// findLabel finds what SELinux takes steps for on a rung with namespaces.
func (r *Rung) findLabel(dir string, userNS bool) error {
	domain, err := executor.FindDomain(dir, userNS)
	if _, keep := errors.AsType[*NotLabelledError](err); err != nil && !keep {
		return err
	}
	r.Label, r.NoLabel = domain.Type(), err
	return nil
}

// tryRung finds what there is in namespaces with this mapping, or why they can't be had.
func tryRung(ctx context.Context, m userns.Mapping, dir string) (found rungFacts, err error) {
	answer, err := os.CreateTemp("", "wherry-rung-")
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, answer.Close(), os.Remove(answer.Name())) }()
	code, err := userns.Try(ctx, m, []string{rungArg0, dir, answer.Name()})
	switch {
	case err != nil:
		return found, err
	case code != 0:
		return found, fmt.Errorf("a process in the namespaces failed with exit code %d", code)
	}
	return found, json.NewDecoder(answer).Decode(&found)
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
