package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

func manifestRmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "Delete one or more manifest lists from local storage",
		ArgsUsage: "MANIFEST_LIST [MANIFEST_LIST...]",
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			return runManifestRm(c.Context, e, args)
		},
	}
}

// runManifestRm removes what it can, as docker does. Of several failures each has
// its line.
func runManifestRm(ctx context.Context, e *env, lists []string) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	var failed error
	for _, typed := range lists {
		list, err := listName(typed)
		if err == nil {
			err = store.RemoveDraft(ctx, list.String())
		}
		if errors.As(err, new(*layout.NotFoundError)) {
			err = noManifest(list)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		if failed != nil {
			e.say("%s: %s", program, printable(failed.Error()))
		}
		failed = err
	}
	return failed
}
