package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

type deleteOptions struct {
	Refs    []string
	DryRun  bool
	Force   bool
	NoPrune bool
}

func newDeleteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "Delete images in a registry",
		ArgsUsage: "NAME:TAG|NAME@DIGEST [NAME:TAG|NAME@DIGEST...]",
		Description: "A tag goes, and what it names if nothing else in the repository needs that: no other tag, and\n" +
			"no index under another tag. With an index go its images, with an image the signatures and other\n" +
			"manifests that refer to it. A digest goes with all its tags.\n\n" + whatIsFreed,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "Only print what would be deleted"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Delete a digest that an index needs, and take what is not there for deleted"},
			&cli.BoolFlag{Name: "no-prune", Usage: "Delete the tags only, and leave what they name to the registry"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			return runDelete(c.Context, e, deleteOptions{
				Refs: args, DryRun: c.Bool("dry-run"), Force: c.Bool("force"), NoPrune: c.Bool("no-prune"),
			})
		},
	}
}

// whatIsFreed is what people ask next.
const whatIsFreed = "The registry frees the space of layers later, when it collects its garbage: docker's registry by\n" +
	"'registry garbage-collect CONFIG', which must not run while somebody pushes, others by themselves.\n" +
	"Manifests without a tag that no index has are in no list of a registry, so they are not found here.\n" +
	"'--delete-untagged' of that command removes them, and before version 3 also the images of every index."

// toDelete is what was typed about one repository.
type toDelete struct {
	repo    reference.Named
	tags    []string
	digests []v1.Hash
}

func runDelete(ctx context.Context, e *env, o deleteOptions) error {
	repos, err := readToDelete(o)
	if err != nil {
		return err
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	var last error
	for _, one := range repos {
		if last != nil {
			e.say("%s: %s", program, printable(last.Error()))
		}
		last = e.deleteIn(ctx, client, one, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if last != nil {
		return errors.Join(last, e.flush())
	}
	return nil
}

// readToDelete sorts the operands by their repositories. A name alone would be its
// tag "latest", which nobody may mean who deletes something.
func readToDelete(o deleteOptions) ([]*toDelete, error) {
	var repos []*toDelete
	for _, typed := range o.Refs {
		ref, err := registry.ParseReference(typed)
		if err != nil {
			return nil, err
		}
		if written, err := reference.ParseNormalizedNamed(typed); err != nil || reference.IsNameOnly(written) {
			return nil, withHint(fmt.Errorf("%q is a repository, not an image", typed), "%s tags %s", program, typed)
		}
		i := slices.IndexFunc(repos, func(r *toDelete) bool { return r.repo.Name() == ref.Name() })
		if i < 0 {
			i, repos = len(repos), append(repos, &toDelete{repo: reference.TrimNamed(ref)})
		}
		if d, ok := ref.(reference.Digested); ok {
			if o.NoPrune {
				return nil, &usageError{command: program + " delete", err: fmt.Errorf("--no-prune deletes tags, and %q is a digest", typed)}
			}
			digest, err := v1.NewHash(d.Digest().String())
			if err != nil {
				return nil, err
			}
			repos[i].digests = append(repos[i].digests, digest)
			continue
		}
		repos[i].tags = append(repos[i].tags, ref.(reference.Tagged).Tag())
	}
	return repos, nil
}

// deleteIn deletes what was asked for in one repository.
func (e *env) deleteIn(ctx context.Context, client *registry.Client, what *toDelete, o deleteOptions) error {
	name := reference.FamiliarName(what.repo)
	if o.NoPrune {
		return e.untag(ctx, client, what, o)
	}
	holdings, err := client.Holdings(ctx, what.repo)
	if err != nil {
		return concerning("delete", name, err)
	}
	removal, err := holdings.Remove(ctx, registry.Selection{Tags: what.tags, Digests: what.digests, Force: o.Force})
	if err != nil {
		return concerning("delete", name, err)
	}
	var missing error
	for _, m := range removal.Missing {
		if o.Force {
			e.say("%s: %s", program, printable(m.Error()))
			continue
		}
		missing = errors.Join(missing, m)
	}
	if o.DryRun {
		e.printRemoval(name, removal)
		return concerning("delete", name, missing)
	}
	err = removal.Delete(ctx, e.tellDeleted(name))
	return concerning("delete", name, errors.Join(missing, err))
}

// untag deletes tags, whatever else needs what they name.
func (e *env) untag(ctx context.Context, client *registry.Client, what *toDelete, o deleteOptions) error {
	tell := e.tellDeleted(reference.FamiliarName(what.repo))
	for _, tag := range what.tags {
		ref, err := reference.WithTag(what.repo, tag)
		if err == nil && o.DryRun {
			_, err = client.Get(ctx, ref)
		} else if err == nil {
			err = client.Untag(ctx, ref)
		}
		if _, missing := errors.AsType[*registry.NotFoundError](err); missing && o.Force {
			e.say("%s: %s", program, printable(err.Error()))
			continue
		}
		if err != nil {
			return concerning("delete", reference.FamiliarString(ref), err)
		}
		tell(tag, v1.Hash{})
	}
	return nil
}

// tellDeleted prints what is gone, in docker's words for it.
func (e *env) tellDeleted(name string) func(tag string, digest v1.Hash) {
	return func(tag string, digest v1.Hash) {
		if tag != "" {
			fmt.Fprintf(&e.Out, "Untagged: %s:%s\n", name, tag)
			return
		}
		fmt.Fprintf(&e.Out, "Deleted: %s@%s\n", name, digest)
	}
}

// printRemoval prints the same of what would go.
func (e *env) printRemoval(name string, r *registry.Removal) {
	tell := e.tellDeleted(name)
	for _, tag := range r.Tags {
		tell(tag, v1.Hash{})
	}
	for _, d := range r.Manifests {
		tell("", d.Digest)
	}
	e.note("nothing was deleted, as --dry-run says")
}
