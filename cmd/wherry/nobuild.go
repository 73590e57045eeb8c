//go:build !linux

package main

import (
	"errors"
	"runtime"

	"github.com/urfave/cli/v2"
)

// newBuildCommand is build where it can't work: the steps of a Dockerfile need
// Linux's namespaces.
func newBuildCommand(*env) *cli.Command {
	return &cli.Command{
		Name:            "build",
		Usage:           "Start a build (on Linux only)",
		ArgsUsage:       "PATH",
		SkipFlagParsing: true,
		Action:          func(*cli.Context) error { return errNeedsLinux() },
	}
}

// newBakeCommand is bake where it can't work.
func newBakeCommand(*env) *cli.Command {
	return &cli.Command{
		Name:            "bake",
		Usage:           "Build from a file (on Linux only)",
		ArgsUsage:       "[TARGET...]",
		SkipFlagParsing: true,
		Action:          func(*cli.Context) error { return errNeedsLinux() },
	}
}

func errNeedsLinux() error {
	return withHint(errors.New("building needs Linux, this is "+runtime.GOOS),
		"run wherry build in a Linux machine or container; every other command works here")
}

// builderCommands are those of docker builder; of a cache there is none here.
func builderCommands(e *env) []*cli.Command { return []*cli.Command{newBuildCommand(e)} }

// buildxCommands are those of docker buildx that are about builders.
func buildxCommands(e *env) []*cli.Command { return builderCommands(e) }

// hintForBuild is the command that helps where a build failed: there is no build here.
func hintForBuild(error, bool) string { return "" }

// reexec does nothing: there are no processes that a build has started.
func reexec() {}
