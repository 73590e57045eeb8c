package main

import (
	"context"
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
			return runLogout(c.Context, e, logoutOptions{Host: firstOf(args...)})
		},
	}
}

func runLogout(ctx context.Context, e *env, o logoutOptions) error {
	e.sayGivenAuth()
	host := registryHost(o.Host)
	stored, err := e.credentials()
	if err != nil {
		return err
	}
	found, err := stored.Erase(ctx, host)
	if err != nil {
		return fmt.Errorf("could not erase credentials of %s: %w", host, err)
	}
	if o.Host == "" {
		host = "https://index.docker.io/v1/" // docker's name for it
	}
	if found {
		fmt.Fprintln(&e.Out, "Removing login credentials for", host)
	} else {
		fmt.Fprintln(&e.Out, "Not logged in to", host)
	}
	return nil
}
