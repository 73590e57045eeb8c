package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// atOnce is how many images of a list are asked for at the same time.
const atOnce = 8

// memberFinder finds what goes into a manifest list: as docker does in the
// registries, and else in the store.
type memberFinder struct {
	env     *env
	store   *layout.Store
	client  *registry.Client
	list    reference.Named // a digest alone is one of its repository
	command string          // "manifest create"
	// platforms are those that are wanted; empty: all of them. What is missing of
	// others is not told.
	platforms []v1.Platform

	roots [][]byte // what each name stands for, byte for byte
}

// findAll asks for several images at once. The members are in their order.
func (f *memberFinder) findAll(ctx context.Context, typed []string) ([][]layout.Member, error) {
	groups := make([][]layout.Member, len(typed))
	f.roots = make([][]byte, len(typed))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, image := range typed {
		g.Go(func() (err error) {
			if _, err := v1.NewHash(image); err == nil {
				image = f.list.Name() + "@" + image
			}
			groups[i], f.roots[i], err = f.find(ctx, image)
			return concerning(f.command, image, err)
		})
	}
	return groups, g.Wait()
}

// find returns the members that an image is, or has, and what its name stands for.
func (f *memberFinder) find(ctx context.Context, typed string) ([]layout.Member, []byte, error) {
	ref, err := registry.ParseReference(typed)
	if err != nil {
		return nil, nil, err
	}
	stored, storeErr := f.store.Find(typed)
	if _, pinned := ref.(reference.Digested); pinned && storeErr == nil {
		if found, missing, err := stored[0].Members(ctx, ref.String(), digestedBy(ref)); err == nil && len(missing) == 0 && len(found) > 0 {
			raw, err := stored[0].RawManifest() //nolint:contextcheck // reads a local file
			return found, raw, err              // a registry can't have anything else
		}
	}
	remote, err := f.client.Get(ctx, ref)
	switch {
	case err == nil:
		if storeErr == nil && stored[0].Name() == ref.String() && stored[0].Descriptor().Digest != remote.Descriptor().Digest {
			f.env.say("note: the store has another %s than the registry: the registry's is taken, %s", typed, remote.Descriptor().Digest)
		}
		return remoteMembers(ctx, remote, ref)
	case !mayBeAbsent(err):
		return nil, nil, err
	case storeErr == nil:
		return f.inStore(ctx, typed, ref, stored[0], err)
	}
	if _, ok := errors.AsType[*layout.AmbiguousError](storeErr); ok {
		return nil, nil, storeErr
	}
	return nil, nil, asNoManifest(err, ref)
}

func remoteMembers(ctx context.Context, img *registry.Image, ref reference.Named) ([]layout.Member, []byte, error) {
	found, err := layout.Members(ctx, img, ref.String(), digestedBy(ref))
	return found, img.RawManifest(), err
}

// mayBeAbsent: registries that do not show whether they have something answer
// like the one that wants a login, and one out of reach has nothing for us.
func mayBeAbsent(err error) bool {
	return errors.As(err, new(*registry.NotFoundError)) || errors.As(err, new(*registry.UnauthorizedError)) ||
		errors.As(err, new(*registry.UnreachableError))
}

// asNoManifest says in docker's words that a registry does not have ref.
func asNoManifest(err error, ref reference.Named) error {
	if errors.As(err, new(*registry.NotFoundError)) {
		return noManifest(ref)
	}
	return err
}

// inStore returns what the store has of an image that the registry can't give.
func (f *memberFinder) inStore(ctx context.Context, typed string, ref reference.Named, img *layout.Image, why error) ([]layout.Member, []byte, error) {
	found, missing, err := img.Members(ctx, ref.String(), digestedBy(ref))
	if err != nil {
		return nil, nil, err
	}
	if len(found) == 0 {
		return nil, nil, withHint(fmt.Errorf("the store has nothing whole of %q", typed), "%s pull --platform all %s", program, typed)
	}
	if errors.As(why, new(*registry.NotFoundError)) {
		f.env.say("note: %s is not in the registry, it is taken from the store", typed)
	} else {
		f.env.say("note: %s is taken from the store: %s", typed, printable(why.Error()))
	}
	if len(f.platforms) > 0 {
		missing = slices.DeleteFunc(missing, func(p v1.Platform) bool {
			return !slices.ContainsFunc(f.platforms, func(want v1.Platform) bool { return platform.Matches(want, p) })
		})
	}
	if len(missing) > 0 {
		names := make([]string, len(missing))
		for i, p := range missing {
			names[i] = platform.Format(p)
		}
		f.env.say("note: the store does not have all of %s: left out %s", typed, strings.Join(names, ", "))
	}
	raw, err := img.RawManifest() //nolint:contextcheck // reads a local file
	return found, raw, err
}

// digestedBy names what is below ref by digest.
func digestedBy(ref reference.Named) func(v1.Hash) string {
	base := ref.String()
	if _, ok := ref.(reference.Digested); ok {
		base = ref.Name()
	}
	return func(h v1.Hash) string { return base + "@" + h.String() }
}
