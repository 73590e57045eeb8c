package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type indexCreateOptions struct {
	indexSources
	indexIdentity
	Amend bool
	Push  bool
}

func indexCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "Begin an index with images of registries and of the store",
		ArgsUsage: "INDEX [SOURCE...]",
		Description: `A SOURCE is looked up in its registry, and if that does not have it, in the
store. "sha256:..." alone is an image of the repository that INDEX names. Of an
index the new one gets all images, or those for the platforms asked for, each
with its attestations; made of one index alone, it also keeps its annotations.

With --push it is published at once, and no draft is kept: so a last job joins
what the jobs for each platform have pushed.`,
		Flags: byName(append(
			indexFlags(),
			&cli.BoolFlag{Name: "amend", Aliases: []string{"a"}, Usage: "Add to the draft of this name, if there is one"},
			insecureFlag("Allow communication with an insecure registry"),
			platformsFlag("Take only the images for the given platform(s)"),
			&cli.BoolFlag{Name: "push", Usage: "Push the index, and keep no draft"},
		)),
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			identity, err := indexIdentityOf(c)
			if err != nil {
				return err
			}
			if c.Bool("push") && c.Bool("amend") {
				return &usageError{command: commandPath(c), err: errors.New("--push keeps no draft: it can't be used with --amend")}
			}
			return runIndexCreate(c.Context, e, indexCreateOptions{
				indexSources: indexSources{
					Index: args[0], Sources: args[1:], Platforms: c.StringSlice("platform"), Insecure: c.Bool("insecure"),
				},
				indexIdentity: identity,
				Amend:         c.Bool("amend"), Push: c.Bool("push"),
			})
		},
	}
}

func runIndexCreate(ctx context.Context, e *env, o indexCreateOptions) error {
	w, err := newIndexWork(e, o.Index, o.Insecure)
	if err != nil {
		return err
	}
	if !o.Amend && !o.Push { // ask early: the registries may be slow
		if _, err := w.store.Draft(ctx, w.name.String()); err == nil {
			return thereIsADraft(o)
		}
	}
	groups, err := w.find(ctx, "create", o.indexSources)
	if err != nil {
		return err
	}
	identify, err := w.identify(ctx, o.indexIdentity)
	if err != nil {
		return err
	}
	fill := func(d *layout.Draft) error {
		if !d.IsNew() && !o.Amend {
			return thereIsADraft(o)
		}
		if d.IsNew() && w.only != nil {
			if err := d.Like(w.only); err != nil {
				return err
			}
		}
		put(d, groups)
		identify(d)
		return nil
	}
	if o.Push {
		d, err := w.store.PassingDraft(w.name.String(), fill)
		if err != nil {
			return err
		}
		return w.push(ctx, d, indexPushOptions{Index: o.Index, Insecure: o.Insecure})
	}
	if _, err := w.store.EditDraft(ctx, w.name.String(), fill); err != nil {
		return err
	}
	fmt.Fprintln(&e.Out, "Created index", w.name)
	return nil
}

func thereIsADraft(o indexCreateOptions) error {
	err := fmt.Errorf("there is a draft of %s already", o.Index)
	if len(o.Sources) == 0 {
		return withHint(err, "%s index rm --all %s", program, o.Index)
	}
	return withHint(err, "%s index add %s %s", program, o.Index, strings.Join(o.Sources, " "))
}
