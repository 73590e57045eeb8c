package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

type manifestPushOptions struct {
	List     string
	Insecure bool
	Purge    bool
}

func manifestPushCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "Push a manifest list to a repository",
		ArgsUsage: "MANIFEST_LIST",
		Description: `What the repository lacks of the images in the list is mounted from where they
came from, copied from another registry, or sent from the store.`,
		Flags: []cli.Flag{
			insecureFlag("Allow push to an insecure registry"),
			&cli.BoolFlag{Name: "purge", Aliases: []string{"p"}, Usage: "Remove the local manifest list after push"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runManifestPush(c.Context, e, manifestPushOptions{
				List: args[0], Insecure: c.Bool("insecure"), Purge: c.Bool("purge"),
			})
		},
	}
}

func runManifestPush(ctx context.Context, e *env, o manifestPushOptions) error {
	list, err := listName(o.List)
	if err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	draft, err := store.Draft(ctx, list.String())
	if errors.As(err, new(*layout.NotFoundError)) {
		return noList(list, "manifest")
	}
	if err != nil {
		return err
	}
	p := listPusher{env: e, draft: draft, insecure: o.Insecure, command: "manifest"}
	if err := p.push(ctx, list); err != nil {
		return concerning("manifest push", o.List, err)
	}
	if o.Purge {
		return errors.Join(e.flush(), store.RemoveDraft(ctx, list.String()))
	}
	return nil
}

// listPusher pushes a draft, perhaps under several names, and says so as docker does.
type listPusher struct {
	env             *env
	draft           *layout.Draft
	insecure, quiet bool
	command         string // "manifest" or "index"
}

func (p listPusher) push(ctx context.Context, names ...reference.Named) error {
	if err := p.pushable(); err != nil {
		return err
	}
	show := newProgress(p.env, p.quiet, pushWords)
	defer show.close()
	client, err := p.env.registryClientFor(p.insecure, show.update)
	if err != nil {
		return err
	}
	src, err := draftSource(p.draft, client)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := client.Push(ctx, name, src); err != nil {
			return err
		}
		if p.quiet || slices.ContainsFunc(names[:i], func(n reference.Named) bool { return n.Name() == name.Name() }) {
			continue
		}
		for _, ref := range elsewhere(p.draft.Members, name) {
			fmt.Fprintf(&p.env.Out, "Pushed ref %s with digest: %s\n", ref, ref.Digest())
		}
	}
	fmt.Fprintln(&p.env.Out, p.draft.Descriptor().Digest)
	return nil
}

// pushable checks that whoever pulls the list can choose from it.
func (p listPusher) pushable() error {
	first := map[string]string{}
	for _, m := range p.draft.Members {
		on, ref := m.Descriptor.Platform, familiarRef(m.Ref)
		if on == nil || on.OS == "" || on.Architecture == "" {
			return withHint(fmt.Errorf("manifest %s must have an OS and Architecture to be pushed to a registry", m.Ref),
				"%s %s annotate --os OS --arch ARCH %s %s", program, p.command, familiarRef(p.draft.Name()), ref)
		}
		if platform.IsAttestation(m.Descriptor) || on.OSVersion != "" || len(on.OSFeatures) > 0 {
			continue
		}
		name := platform.Format(*on)
		if other, ok := first[name]; ok {
			p.env.say("note: both %s and %s are for %s: whoever pulls gets the first", other, ref, name)
			continue
		}
		first[name] = ref
	}
	return nil
}
