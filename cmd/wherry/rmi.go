package main

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

type rmiOptions struct {
	Refs      []string
	Force     bool
	Platforms []string // empty: all of the image
}

func newRmiCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rmi",
		Usage:     "Remove one or more images",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Force removal of the image"},
			&cli.BoolFlag{Name: "no-prune", Usage: "Do not delete untagged parents (the store has none)"},
			platformsFlag("Remove only the content for the given platform(s), not the name"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			return runRmi(c.Context, e, rmiOptions{
				Refs: args, Force: c.Bool("force"), Platforms: c.StringSlice("platform"),
			})
		},
	}
}

// runRmi removes what it can, as docker does: one wrong name keeps none of the
// others, and what is gone is reported beside the error.
func runRmi(ctx context.Context, e *env, o rmiOptions) error {
	platforms, err := platform.ParseAll(o.Platforms)
	if err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	if len(platforms) > 0 {
		return e.rmiPlatforms(ctx, store, platforms, o)
	}
	removed, err := store.RemoveAll(ctx, o.Refs, layout.RemoveOptions{Force: o.Force})
	if removed == nil {
		return concerning("rmi", o.Refs[0], err)
	}
	e.printRemoved(removed, "Untagged:", "Deleted:")
	return errors.Join(e.rmiFailures(removed.Failed, o.Force), e.collected(ctx, removed.Collected, err))
}

// rmiPlatforms removes a part of every image.
func (e *env) rmiPlatforms(ctx context.Context, store *layout.Store, platforms []v1.Platform, o rmiOptions) error {
	var failed []layout.RefError
	for _, ref := range o.Refs {
		removed, err := store.RemovePlatforms(ctx, ref, platforms, layout.RemoveOptions{Force: o.Force})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case removed == nil:
			failed = append(failed, layout.RefError{Ref: ref, Err: err})
			continue
		}
		e.printRemoved(removed, "Untagged:", "Deleted:")
		if err := e.collected(ctx, removed.Collected, err); err != nil {
			return err
		}
	}
	return e.rmiFailures(failed, o.Force)
}

// printRemoved tells what is gone, with docker's words for it in front.
func (e *env) printRemoved(removed *layout.Removed, untagged, deleted string) {
	removed.Each(
		func(name string) { fmt.Fprintln(&e.Out, untagged, familiarString(name)) },
		func(digest v1.Hash) { fmt.Fprintln(&e.Out, deleted, digest) },
	)
}

// rmiFailures says why something was not removed, and returns the last error that
// counts: with --force what is not there is none.
func (e *env) rmiFailures(failed []layout.RefError, force bool) error {
	var last error
	for _, f := range failed {
		if _, missing := errors.AsType[*layout.NotFoundError](f.Err); missing && force {
			e.say("%s: %s", program, printable(f.Err.Error()))
			continue
		}
		if last != nil {
			e.say("%s: %s", program, printable(last.Error()))
		}
		last = concerning("rmi", f.Ref, f.Err)
	}
	if last == nil {
		return nil
	}
	return errors.Join(last, e.flush())
}
