package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type manifestCreateOptions struct {
	List     string
	Images   []string
	Amend    bool
	Insecure bool
}

func manifestCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "Create a local manifest list for annotating and pushing to a registry",
		ArgsUsage: "MANIFEST_LIST MANIFEST [MANIFEST...]",
		Description: `A MANIFEST is looked up in its registry, and if that does not have it, in the
store. If it is a list itself, the list gets all that is in it.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "amend", Aliases: []string{"a"}, Usage: "Amend an existing manifest list"},
			insecureFlag("Allow communication with an insecure registry"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 2, -1)
			if err != nil {
				return err
			}
			return runManifestCreate(c.Context, e, manifestCreateOptions{
				List: args[0], Images: args[1:], Amend: c.Bool("amend"), Insecure: c.Bool("insecure"),
			})
		},
	}
}

func runManifestCreate(ctx context.Context, e *env, o manifestCreateOptions) error {
	list, err := listName(o.List)
	if err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	if !o.Amend { // ask early: the registries may be slow
		if _, err := store.Draft(ctx, list.String()); err == nil {
			return refuseToAmend(o)
		}
	}
	client, err := e.registryClientFor(o.Insecure, nil)
	if err != nil {
		return err
	}
	finder := memberFinder{env: e, store: store, client: client, list: list, command: "manifest create"}
	groups, err := finder.findAll(ctx, o.Images)
	if err != nil {
		return err
	}
	_, err = store.EditDraft(ctx, list.String(), func(d *layout.Draft) error {
		if !d.IsNew() && !o.Amend {
			return refuseToAmend(o)
		}
		for _, members := range groups {
			d.Put(members)
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(&e.Out, "Created manifest list", list)
	return nil
}

func refuseToAmend(o manifestCreateOptions) error {
	return withHint(errors.New("refusing to amend an existing manifest list with no --amend flag"),
		"%s manifest create --amend %s %s", program, o.List, strings.Join(o.Images, " "))
}

// familiarRef is a full name that the store keeps as people type it.
func familiarRef(full string) string {
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return full
	}
	return reference.FamiliarString(named)
}
