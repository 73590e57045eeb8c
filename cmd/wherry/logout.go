package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

type logoutOptions struct {
	Host string // empty: Docker Hub
}

func newLogoutCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "logout",
		Usage:       "Log out from a registry",
		ArgsUsage:   "[SERVER]",
		Description: "Defaults to Docker Hub if no server is specified.",
		Action: func(c *cli.Context) error {
			args, err := operands(c, 0, 1)
			if err != nil {
				return err
			}
			return runLogout(e, logoutOptions{Host: firstOf(args...)})
		},
	}
}

func runLogout(e *env, o logoutOptions) error {
	host := registryHost(o.Host)
	stored, err := e.credentials()
	if err != nil {
		return err
	}
	if err := stored.Erase(host); err != nil {
		return fmt.Errorf("erasing the credentials of %s: %w", host, err)
	}
	fmt.Fprintln(&e.Out, "Removing login credentials for", host)
	return nil
}
