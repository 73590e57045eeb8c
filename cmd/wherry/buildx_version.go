package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// buildxVersionCommand prints one line, as scripts that look for buildx expect.
func buildxVersionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "Show version information",
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			fmt.Fprintln(&e.Out, versionLine())
			return nil
		},
	}
}
