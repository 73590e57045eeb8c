package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
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
		return noList(list)
	}
	if err != nil {
		return err
	}
	if err := pushable(e, draft); err != nil {
		return err
	}
	show := newProgress(e, false, pushWords)
	defer show.close()
	client, err := e.registryClientFor(o.Insecure, show.update)
	if err != nil {
		return err
	}
	src, err := newListSource(draft, client)
	if err != nil {
		return err
	}
	if err := client.Push(ctx, list, src); err != nil {
		return concerning("manifest push", o.List, err)
	}
	for _, ref := range src.elsewhere(list) {
		fmt.Fprintf(&e.Out, "Pushed ref %s with digest: %s\n", ref, ref.Digest())
	}
	fmt.Fprintln(&e.Out, draft.Descriptor().Digest)
	if o.Purge {
		return errors.Join(e.flush(), store.RemoveDraft(ctx, list.String()))
	}
	return nil
}

// pushable checks that whoever pulls the list can choose from it.
func pushable(e *env, d *layout.Draft) error {
	first := map[string]string{}
	for _, m := range d.Members {
		p, ref := m.Descriptor.Platform, familiarRef(m.Ref)
		if p == nil || p.OS == "" || p.Architecture == "" {
			return withHint(fmt.Errorf("manifest %s must have an OS and Architecture to be pushed to a registry", m.Ref),
				"%s manifest annotate --os OS --arch ARCH %s %s", program, familiarRef(d.Name()), ref)
		}
		if platform.IsAttestation(m.Descriptor) || p.OSVersion != "" || len(p.OSFeatures) > 0 {
			continue
		}
		name := platform.Format(*p)
		if other, ok := first[name]; ok {
			e.say("note: both %s and %s are for %s: whoever pulls gets the first", other, ref, name)
			continue
		}
		first[name] = ref
	}
	return nil
}

// listSource is what a manifest list needs to be pushed: its own blobs are in
// the store, those of its manifests there or in the repositories they come from.
type listSource struct {
	*layout.Draft
	client *registry.Client
	from   map[v1.Hash]reference.Canonical // of each blob the manifest that needs it

	mu     sync.Mutex
	images map[string]*registry.Image
}

func newListSource(d *layout.Draft, client *registry.Client) (*listSource, error) {
	l := &listSource{Draft: d, client: client, from: map[v1.Hash]reference.Canonical{}, images: map[string]*registry.Image{}}
	for _, m := range d.Members {
		ref, err := canonical(m)
		if err != nil {
			return nil, err
		}
		var refers struct {
			Config v1.Descriptor   `json:"config"`
			Layers []v1.Descriptor `json:"layers"`
		}
		if err := json.Unmarshal(m.Raw, &refers); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", m.Ref, err)
		}
		for _, b := range append(refers.Layers, refers.Config) {
			if _, ok := l.from[b.Digest]; !ok {
				l.from[b.Digest] = ref
			}
		}
	}
	return l, nil
}

// canonical is the repository of m, and its digest.
func canonical(m layout.Member) (reference.Canonical, error) {
	named, err := reference.ParseNormalizedNamed(m.Ref)
	if err != nil {
		return nil, fmt.Errorf("manifest list: %q: %w", m.Ref, err)
	}
	parsed, err := reference.ParseNormalizedNamed(named.Name() + "@" + m.Descriptor.Digest.String())
	if err != nil {
		return nil, fmt.Errorf("manifest list: %q: %w", m.Ref, err)
	}
	return parsed.(reference.Canonical), nil // it has a digest
}

// Origins implements [registry.Origins].
func (l *listSource) Origins(d v1.Descriptor) []reference.Named {
	if ref, ok := l.from[d.Digest]; ok {
		return []reference.Named{reference.TrimNamed(ref)}
	}
	return nil
}

// Open implements [registry.Source].
func (l *listSource) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := l.Draft.Open(ctx, d, offset)
	ref, ok := l.from[d.Digest]
	if !errors.Is(err, fs.ErrNotExist) || !ok {
		return r, err
	}
	img, err := l.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return img.Open(ctx, d, offset)
}

func (l *listSource) image(ctx context.Context, ref reference.Canonical) (*registry.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if img, ok := l.images[ref.String()]; ok {
		return img, nil
	}
	img, err := l.client.Get(ctx, ref)
	if err == nil {
		l.images[ref.String()] = img
	}
	return img, err
}

// elsewhere are the manifests that came from other repositories, as they are
// called in that of list.
func (l *listSource) elsewhere(list reference.Named) []reference.Canonical {
	var pushed []reference.Canonical
	for _, m := range l.Members {
		from, err := canonical(m)
		if err != nil || from.Name() == list.Name() {
			continue
		}
		if here, err := reference.WithDigest(reference.TrimNamed(list), from.Digest()); err == nil {
			pushed = append(pushed, here)
		}
	}
	return pushed
}
