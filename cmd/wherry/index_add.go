package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

func indexAddCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "add",
		Usage:     "Add images to the draft of an index",
		ArgsUsage: "INDEX SOURCE [SOURCE...]",
		Description: `A SOURCE is what it is to "index create". One that is in the draft already takes
the place that it has, as it is now, and keeps what it was annotated with.`,
		Flags: []cli.Flag{
			insecureFlag("Allow communication with an insecure registry"),
			platformsFlag("Take only the images for the given platform(s)"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 2, -1)
			if err != nil {
				return err
			}
			return runIndexAdd(c.Context, e, indexSources{
				Index: args[0], Sources: args[1:], Platforms: c.StringSlice("platform"), Insecure: c.Bool("insecure"),
			})
		},
	}
}

func runIndexAdd(ctx context.Context, e *env, o indexSources) error {
	w, err := newIndexWork(e, o.Index, o.Insecure)
	if err != nil {
		return err
	}
	if _, err := w.draft(ctx); err != nil { // ask early: the registries may be slow
		return err
	}
	groups, err := w.find(ctx, "add", o)
	if err != nil {
		return err
	}
	var now int
	err = w.edit(ctx, func(d *layout.Draft) error {
		put(d, groups)
		now = len(imagesIn(d.Members))
		return nil
	})
	if err == nil {
		fmt.Fprintf(&e.Out, "%s: %d image%s\n", w.name, now, plural(now))
	}
	return err
}
