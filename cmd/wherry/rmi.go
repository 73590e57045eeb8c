package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type rmiOptions struct {
	Refs  []string
	Force bool
}

func newRmiCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rmi",
		Usage:     "Remove one or more images",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Force removal of the image"},
			&cli.BoolFlag{Name: "no-prune", Usage: "Do not delete untagged parents (the store has none)"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			return runRmi(c.Context, e, rmiOptions{Refs: args, Force: c.Bool("force")})
		},
	}
}

// runRmi removes nothing where one of the names is wrong.
func runRmi(ctx context.Context, e *env, o rmiOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	var there []string
	for _, ref := range o.Refs {
		_, err := store.Find(ref)
		_, missing := errors.AsType[*layout.NotFoundError](err)
		switch {
		case missing && o.Force:
			e.say("%s: %s", program, printable(err.Error()))
		case err != nil:
			return concerning("rmi", ref, err)
		default:
			there = append(there, ref)
		}
	}
	for _, ref := range there {
		removed, err := store.Remove(ctx, ref, layout.RemoveOptions{Force: o.Force})
		if _, gone := errors.AsType[*layout.NotFoundError](err); gone {
			continue // it was there a moment ago: an operand before meant the same image
		}
		if err != nil {
			// What is gone is gone: it is reported beside the error.
			return errors.Join(concerning("rmi", ref, err), e.flush())
		}
		for _, name := range removed.Untagged {
			fmt.Fprintln(&e.Out, "Untagged:", familiarString(name))
		}
		for _, digest := range removed.Deleted {
			fmt.Fprintln(&e.Out, "Deleted:", digest)
		}
	}
	return nil
}
