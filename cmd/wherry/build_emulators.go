//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/platform"
)

func emulatorDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "emulator-dir", Usage: "Folder with emulators for steps of other platforms, as qemu-aarch64-static\n" +
		"(WHERRY_EMULATOR_DIR) (default: those in PATH)"}
}

// emulatorDir is the absolute path of the folder with emulators that was typed, or that the environment names; "" for
// none.
func (e *env) emulatorDir(typed string) (string, error) {
	dir := firstOf(typed, e.Getenv("WHERRY_EMULATOR_DIR"))
	if dir == "" {
		return "", nil
	}
	if info, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("folder of emulators: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("folder of emulators: %q is no folder", dir)
	}
	return filepath.Abs(dir)
}

// sayPlatforms says how steps for other platforms than this machine's will be run, unless a build is to be silent.
func (e *env) sayPlatforms(ctx context.Context, state build.State, requests ...build.Request) error {
	var said []v1.Platform
	for _, r := range requests {
		if r.Progress.Mode == "quiet" || r.Progress.Mode == "none" {
			continue
		}
		list, err := state.PlatformSteps(ctx, r)
		if err != nil {
			return err
		}
		for _, s := range list {
			if !slices.ContainsFunc(said, s.Platform.Equals) {
				said = append(said, s.Platform)
				e.note(platform.Format(s.Platform) + ": " + stepsText(s))
			}
		}
	}
	return nil
}

func stepsText(s build.PlatformSteps) string {
	none, impossible := errors.AsType[*build.NoEmulatorError](s.Reason)
	switch {
	case impossible:
		return fmt.Sprintf("RUN can't work, other instructions do (%s)", none.Reason)
	case s.Registered:
		return fmt.Sprintf("steps are emulated by %s, as this machine has registered", s.Emulator)
	case s.Emulator != "":
		return "steps are emulated by " + s.Emulator
	}
	return "this machine runs its programs"
}

// hintForEmulator is what would let steps for the platform run.
func hintForEmulator(e *build.NoEmulatorError) string {
	arch := e.Platform
	if p, err := platform.Parse(e.Platform); err == nil {
		arch = p.Architecture
	}
	return hintForEmulators(e, arch)
}

// hintForEmulators is hintForEmulator for these architectures, "all" for all there are.
func hintForEmulators(e *build.NoEmulatorError, arch string) string {
	if e.Own {
		return fmt.Sprintf("sudo apt-get install qemu-user-static (or your system's way), or %s build --emulator-dir FOLDER ...", program)
	}
	return fmt.Sprintf("docker run --privileged --rm tonistiigi/binfmt --install %s, or sudo apt-get install qemu-user-static: on the host, whose kernel it is", arch)
}
