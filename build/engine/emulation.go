//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/util/archutil"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/platform"
)

// Emulation knows how steps for other architectures are run here.
type Emulation struct {
	why error                           // why no emulator can be registered for steps alone; nil if that is to be tried
	own func(ctx context.Context) error // tries that once

	mu    sync.Mutex
	found map[string][]string // formats, by the folders that were searched
}

// NewEmulation tells by what engines with these options run steps.
func NewEmulation(o Options) *Emulation {
	e := &Emulation{found: map[string][]string{}}
	switch {
	case o.NoMounts:
		e.why = errors.New("with this isolation there are no namespaces")
	case o.Runtime != "":
		e.why = fmt.Errorf("%s knows nothing of emulators", o.Runtime)
	}
	var once sync.Once
	var err error
	e.own = func(ctx context.Context) error {
		once.Do(func() { err = executor.FormatsWork(context.WithoutCancel(ctx), o.HostPID) })
		return err
	}
	return e
}

// Way is how steps for an architecture are run. If nothing else is set they are run by the processor.
type Way struct {
	Emulator   string // the program that runs them
	Registered bool   // the host has it registered; else it is registered for the steps alone
}

// NoWayError says why no steps can be run for an architecture.
type NoWayError struct {
	Reason string
	// Own says that an emulator would do; else the host has to have one registered.
	Own bool
}

func (e *NoWayError) Error() string { return e.Reason }

// For says how steps for an architecture (GOARCH) are run, with the emulators in these folders and in those of PATH.
// The error is a [*NoWayError]. What runs here is found by trying.
func (e *Emulation) For(ctx context.Context, arch string, dirs []string) (Way, error) {
	if arch == runtime.GOARCH {
		return Way{}, nil
	}
	if runsHere(arch) {
		registered := platform.RegisteredEmulator(arch)
		return Way{Emulator: registered, Registered: registered != ""}, nil
	}
	if e.why != nil {
		return Way{}, &NoWayError{Reason: fmt.Sprintf("%v, and the host has no emulator for %s registered", e.why, arch)}
	}
	program, missing := platform.FindEmulator(arch, dirs...)
	if err := e.own(ctx); err != nil {
		return Way{}, &NoWayError{Reason: fmt.Sprintf("the kernel can't be told of emulators here (%v), and the host has none for %s registered", err, arch)}
	}
	if missing != nil {
		return Way{}, &NoWayError{Reason: missing.Error(), Own: true}
	}
	return Way{Emulator: program}, nil
}

// runsHere says whether programs for the architecture run, by the processor or a registered emulator.
func runsHere(arch string) bool {
	for _, p := range archutil.SupportedPlatforms(false) {
		if p.Architecture == arch {
			return true
		}
	}
	return false
}

// Formats are those that steps are to have in their own namespace, where nothing of the host is registered: all for
// which there are emulators, but what the processor runs.
func (e *Emulation) Formats(ctx context.Context, dirs []string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := strings.Join(dirs, "\x00")
	if known, ok := e.found[key]; ok {
		return known
	}
	all := platform.Emulated()
	lines := make([]string, len(all))
	var asked sync.WaitGroup
	for i, arch := range all {
		if arch == runtime.GOARCH || runsHere(arch) && platform.RegisteredEmulator(arch) == "" {
			continue
		}
		asked.Go(func() {
			if program, err := platform.FindEmulator(arch, dirs...); err == nil {
				lines[i] = platform.Registration(arch, program, flagsOf(ctx, program))
			}
		})
	}
	asked.Wait()
	e.found[key] = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	return e.found[key]
}

// versionLimit bounds how long a program is waited for that is asked for its version.
const versionLimit = 5 * time.Second

// flagsOf are how the kernel calls an emulator: one that it has opened before (F), since the step does not have it, and
// with the rights that the program's own file gives (C), or sudo would be of no use in a step. Since its version 6
// QEMU can also be told by what name a program was called (P).
func flagsOf(ctx context.Context, program string) string {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	text, err := exec.CommandContext(ctx, program, "--version").Output()
	_, version, _ := strings.Cut(string(text), " version ")
	major, _, _ := strings.Cut(version, ".")
	if n, perr := strconv.Atoi(major); err == nil && perr == nil && n >= 6 {
		return "FCP"
	}
	return "FC"
}
