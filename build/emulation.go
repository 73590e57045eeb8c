//go:build linux

package build

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/platform"
)

// PlatformSteps says how steps for a platform are run.
type PlatformSteps struct {
	Platform   v1.Platform
	Emulator   string // the program that runs them; "" if the processor does, or if the host's own can't be seen
	Registered bool   // the host has the emulator registered; else it is registered for the steps alone
	Reason     error  // why none can be run, a [*NoEmulatorError]; nil if they can
}

// PlatformSteps says how the steps of a request are run for its platforms, of which those that are this machine's are left
// out. It is to be asked where [State.Enter] has led to.
func (s State) PlatformSteps(ctx context.Context, r Request) ([]PlatformSteps, error) {
	if s.Isolation == IsolationNone {
		return nil, nil
	}
	var list []PlatformSteps
	var emulation *engine.Emulation
	for _, p := range r.Platforms {
		if p.Architecture == runtime.GOARCH {
			continue
		}
		if emulation == nil {
			o, err := engineOptions(nil, s, Request{Runtime: r.Runtime})
			if err != nil {
				return nil, err
			}
			emulation = engine.NewEmulation(o)
		}
		list = append(list, stepsFor(ctx, emulation, p, r.EmulatorDir))
	}
	return list, nil
}

// Steps says how steps for an architecture (GOARCH) are run on a rung that can be had, with the emulators in PATH and,
// before them, in these folders.
func (r Rung) Steps(arch string, dirs ...string) PlatformSteps {
	s := PlatformSteps{Platform: v1.Platform{OS: "linux", Architecture: arch}}
	runs := slices.ContainsFunc(r.Platforms, func(p v1.Platform) bool { return p.Architecture == arch })
	if runs || arch == runtime.GOARCH {
		if arch != runtime.GOARCH {
			s.Emulator = platform.RegisteredEmulator(arch)
		}
		s.Registered = s.Emulator != ""
		return s
	}
	program, err := platform.FindEmulator(arch, dirs...)
	none := &NoEmulatorError{Platform: platform.Format(s.Platform), Reason: r.NoEmulation, Own: r.NoEmulation == ""}
	switch {
	case !none.Own:
		s.Reason = none
	case err != nil:
		none.Reason = err.Error()
		s.Reason = none
	default:
		s.Emulator = program
	}
	return s
}

func stepsFor(ctx context.Context, e *engine.Emulation, p v1.Platform, dir string) PlatformSteps {
	var dirs []string
	if dir != "" {
		dirs = []string{dir}
	}
	way, err := e.For(ctx, p.Architecture, dirs)
	found := PlatformSteps{Platform: p, Emulator: way.Emulator, Registered: way.Registered}
	if none, ok := errors.AsType[*engine.NoWayError](err); ok {
		found.Reason = &NoEmulatorError{Platform: platform.Format(p), Reason: none.Reason, Own: none.Own}
	}
	return found
}

// emulatorDirs are the request's own folder of emulators, and those in which this process finds what its platforms
// need: the engine may be another process, with another PATH.
func emulatorDirs(r Request) []string {
	var given, dirs []string
	if r.EmulatorDir != "" {
		given = []string{r.EmulatorDir}
	}
	for _, p := range r.Platforms {
		if p.Architecture == runtime.GOARCH {
			continue
		}
		if path, err := platform.FindEmulator(p.Architecture, given...); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	slices.Sort(dirs)
	return append(given, slices.Compact(dirs)...)
}
