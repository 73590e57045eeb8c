package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

type indexRmOptions struct {
	Index     string
	Entries   []string
	Platforms []string
	All       bool
}

func indexRmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "Remove images from the draft of an index, or the draft",
		ArgsUsage: "INDEX [ENTRY...]",
		Description: `An ENTRY is the name that an image was added by, its digest or the beginning of
one, or a platform. What attests to an image goes with it. Nothing is removed
from a registry.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "Remove the draft itself"},
			platformsFlag("Remove the images for the given platform(s)"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			o := indexRmOptions{Index: args[0], Entries: args[1:], Platforms: c.StringSlice("platform"), All: c.Bool("all")}
			if some := len(o.Entries)+len(o.Platforms) > 0; some == o.All {
				return &usageError{command: commandPath(c), err: errors.New("name entries or platforms to remove, or --all for the draft itself")}
			}
			return runIndexRm(c.Context, e, o)
		},
	}
}

func runIndexRm(ctx context.Context, e *env, o indexRmOptions) error {
	w, err := newIndexWork(e, o.Index, false)
	if err != nil {
		return err
	}
	if o.All {
		err := w.store.RemoveDraft(ctx, w.name.String())
		if errors.As(err, new(*layout.NotFoundError)) {
			return noManifest(w.name)
		}
		return err
	}
	platforms, err := platform.ParseAll(o.Platforms)
	if err != nil {
		return err
	}
	var removed []layout.Member
	err = w.edit(ctx, func(d *layout.Draft) error {
		gone, err := toRemove(d, o.Entries, platforms)
		if err == nil {
			removed = d.Remove(func(m *layout.Member) bool { return slices.Contains(gone, m.Descriptor.Digest) })
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range removed {
		fmt.Fprintf(&e.Out, "Removed: %s\n", m.Descriptor.Digest)
	}
	return nil
}

// toRemove are the digests of what is to go. Each entry and each platform has to be there.
func toRemove(d *layout.Draft, entries []string, platforms []v1.Platform) (gone []v1.Hash, err error) {
	for _, typed := range entries {
		found := membersCalled(d, typed)
		if len(found) == 0 {
			return nil, noEntry(d, typed, "index")
		}
		for _, m := range found {
			gone = append(gone, m.Descriptor.Digest)
		}
	}
	for _, p := range platforms {
		found := layout.MembersFor(d.Members, []v1.Platform{p})
		if len(found) == 0 {
			return nil, noEntry(d, platform.Format(p), "index")
		}
		for _, m := range found {
			gone = append(gone, m.Descriptor.Digest)
		}
	}
	return gone, nil
}
