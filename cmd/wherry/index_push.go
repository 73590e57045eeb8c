package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type indexPushOptions struct {
	Index    string
	As       []string // empty: as Index
	Insecure bool
	Purge    bool
	Quiet    bool
}

func indexPushCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "Push the draft of an index to its repository, or under other names",
		ArgsUsage: "INDEX [NAME...]",
		Description: `What a repository lacks of the images in the index is mounted from where they
came from, copied from another registry, or sent from the store. With NAMEs the
index is pushed as each of them, and not as INDEX.`,
		Flags: []cli.Flag{
			insecureFlag("Allow push to an insecure registry"),
			&cli.BoolFlag{Name: "purge", Aliases: []string{"p"}, Usage: "Remove the draft after the push"},
			quietFlag("Print the digest only"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			return runIndexPush(c.Context, e, indexPushOptions{
				Index: args[0], As: args[1:], Insecure: c.Bool("insecure"), Purge: c.Bool("purge"), Quiet: c.Bool("quiet"),
			})
		},
	}
}

func runIndexPush(ctx context.Context, e *env, o indexPushOptions) error {
	w, err := newIndexWork(e, o.Index, o.Insecure)
	if err != nil {
		return err
	}
	d, err := w.draft(ctx)
	if err != nil {
		return err
	}
	if err := w.push(ctx, d, o); err != nil {
		return err
	}
	if o.Purge {
		return errors.Join(e.flush(), w.store.RemoveDraft(ctx, w.name.String()))
	}
	return nil
}

func (w *indexWork) push(ctx context.Context, d *layout.Draft, o indexPushOptions) error {
	if len(imagesIn(d.Members)) == 0 {
		return withHint(fmt.Errorf("there is no image in %s", o.Index), "%s index add %s SOURCE...", program, o.Index)
	}
	names := []reference.Named{w.name}
	if len(o.As) > 0 {
		names = nil
	}
	for _, typed := range o.As {
		name, err := listName(typed)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	p := listPusher{env: w.env, draft: d, insecure: o.Insecure, quiet: o.Quiet, command: "index"}
	return concerning("index push", o.Index, p.push(ctx, names...))
}
