//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
)

type buildxRmOptions struct {
	Builders    []string
	AllInactive bool
	Force       bool
	Timeout     time.Duration
}

func buildxRmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "Remove one or more builder instances",
		ArgsUsage: "[BUILDER...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all-inactive", Usage: "Remove all inactive builders"},
			&cli.StringFlag{Name: "builder", Usage: "Override the configured builder instance"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Do not prompt for confirmation"},
			hidden(&cli.BoolFlag{Name: "keep-daemon", Usage: "Keep the BuildKit daemon running (as always)"}),
			hidden(&cli.BoolFlag{Name: "keep-state", Usage: "Keep BuildKit state (as always)"}),
			statusTimeoutFlag(),
		},
		Action: func(c *cli.Context) error {
			o := buildxRmOptions{Builders: c.Args().Slice(), AllInactive: c.Bool("all-inactive"), Force: c.Bool("force"), Timeout: c.Duration("timeout")}
			if o.AllInactive && len(o.Builders) > 0 {
				return &usageError{command: commandPath(c), err: errors.New("cannot specify builder name when --all-inactive is set")}
			}
			if len(o.Builders) == 0 && !o.AllInactive {
				name, err := e.builderName(c.String("builder"))
				if err != nil {
					return err
				}
				o.Builders = []string{name}
			}
			return runBuildxRm(c.Context, e, o)
		},
	}
}

// runBuildxRm forgets builders. The daemons are not wherry's, and go on.
func runBuildxRm(ctx context.Context, e *env, o buildxRmOptions) error {
	if o.AllInactive {
		if !o.Force {
			sure, err := e.confirm(ctx, "WARNING! This will remove all builders that are not in running state. Are you sure you want to continue?")
			if err != nil || !sure {
				return err
			}
		}
		var err error
		if o.Builders, err = e.inactiveBuilders(ctx, o.Timeout); err != nil {
			return err
		}
	}
	for _, name := range o.Builders {
		if name == farm.Default {
			return fmt.Errorf("builder %q is this process, and can't be removed", name)
		}
		if err := e.builders().Remove(name); err != nil {
			return err
		}
		e.say("%s removed", name)
	}
	return nil
}

// inactiveBuilders are those of which no node answers.
func (e *env) inactiveBuilders(ctx context.Context, timeout time.Duration) ([]string, error) {
	all, err := e.allBuilders()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, b := range all[1:] {
		running := false
		for _, n := range build.Status(ctx, b.Nodes, build.StatusOptions{Timeout: timeout}) {
			running = running || n.Err == nil
		}
		if !running {
			list = append(list, b.Name)
		}
	}
	return list, ctx.Err()
}
