//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/chroot"
	"github.com/wherry-oci/wherry/build/userns"
)

// Init has to be the first thing the program does: when this process is one that
// Build, Enter or Rungs has started, it runs that part and never returns.
func Init() {
	switch os.Args[0] {
	case executor.InitArg0:
		executor.Init()
	case chroot.InitArg0:
		chroot.Init()
	case userns.InitArg0:
		userns.Init()
	}
	if userns.Program() == rungArg0 {
		initRung()
	}
}

// State is where builds work: a folder that keeps the build cache, and by what means.
type State struct {
	Dir       string
	Isolation Isolation // as [Enter] has found it; "" is IsolationNamespaces
	// Lower is why Enter has found no better isolation; nil if there is none, or if it
	// was asked for this one.
	Lower error
}

// Enter goes where this process may build by the wanted means, or for IsolationAuto by
// the best that works, and says in s.Isolation and s.Lower which these are.
//
// For namespaces it runs this program again, with the same arguments: in a mount
// namespace of its own and, for an ordinary user, in a user namespace. entered is true
// where that run has done the whole work; code is its exit code.
//
// What was wanted and is not to be had gives a [*userns.NotPermittedError] or a
// [*NoChrootError].
func (s *State) Enter(ctx context.Context, wanted Isolation, notice func(string)) (code int, entered bool, err error) {
	s.Isolation, s.Lower = wanted, nil
	switch wanted {
	case IsolationChroot:
		return 0, false, chrootPossible()
	case IsolationNone:
		return 0, false, userns.FakeOwnership()
	case IsolationNamespaces:
		return enterNamespaces(ctx, notice)
	}
	s.Isolation = IsolationNamespaces
	code, entered, err = enterNamespaces(ctx, notice)
	if _, refused := errors.AsType[*userns.NotPermittedError](err); !refused {
		return code, entered, err
	}
	s.Isolation, s.Lower = IsolationChroot, err
	if chrootPossible() == nil {
		notify(notice, fmt.Sprintf("%v; steps run by chroot instead, and can gain no privileges", err))
		return 0, false, nil
	}
	s.Isolation = IsolationNone
	return 0, false, userns.FakeOwnership()
}

func enterNamespaces(ctx context.Context, notice func(string)) (code int, entered bool, err error) {
	code, entered, err = userns.Enter(ctx, userns.Options{Notice: notice})
	if entered || err != nil {
		return code, entered, err
	}
	if userns.Current() == userns.Single {
		err = userns.FakeOwnOwnership()
	}
	return 0, false, err
}

// mounts says whether file systems can be mounted there.
func (s State) mounts() bool { return s.Isolation == "" || s.Isolation == IsolationNamespaces }

// folder keeps what was written by one means, and under one mapping of ids, from the
// others.
func (s State) folder() string {
	switch s.Isolation {
	case IsolationChroot, IsolationNone:
		return filepath.Join(s.Dir, string(s.Isolation))
	}
	return filepath.Join(s.Dir, map[userns.Mapping]string{
		userns.None: "root", userns.Range: "userns", userns.Single: "single-id",
	}[userns.Current()])
}
