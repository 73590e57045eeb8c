//go:build linux

package main

import (
	"github.com/urfave/cli/v2"
)

func buildxUseCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "use",
		Usage:     "Set the current builder instance",
		ArgsUsage: "BUILDER",
		Flags: []cli.Flag{
			hidden(&cli.BoolFlag{Name: "default", Usage: "Set builder as default for current context (has no effect)"}),
			hidden(&cli.BoolFlag{Name: "global", Usage: "Builder persists context changes (has no effect)"}),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			if err := e.builders().Use(args[0]); err != nil {
				return err
			}
			if set := e.Getenv("BUILDX_BUILDER"); set != "" && set != args[0] {
				e.say("note: BUILDX_BUILDER=%s goes before it", set)
			}
			return nil
		},
	}
}
