package layout

import (
	"context"
	"errors"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// RemoveOptions say how far [Store.Remove] may go.
type RemoveOptions struct {
	Force bool // an ID may have several names, all of which go
}

// Removed is what [Store.RemoveAll] did.
type Removed struct {
	Untagged  []string  // full names that are gone, in the order of the refs
	Deleted   []v1.Hash // images (manifests and indexes) that no entry points at any more
	Collected Collected // what that freed; nothing if the store was busy
	Failed    []RefError
	before    []int // by deleted image, how many names were gone before it
}

// Each calls these for every name and image that is gone, in the order in which
// they went: an image comes after its last name.
func (r *Removed) Each(untagged func(name string), deleted func(v1.Hash)) {
	names := 0
	for i, h := range r.Deleted {
		for ; names < r.before[i]; names++ {
			untagged(r.Untagged[names])
		}
		deleted(h)
	}
	for _, name := range r.Untagged[names:] {
		untagged(name)
	}
}

// RefError says why one of several references could not be served.
type RefError struct {
	Ref string // as it was asked for
	Err error
}

// Remove takes away what ref stands for, as [Store.Find] reads it. A name loses
// its entry, and its image with it if that was the last one; an ID loses all its
// entries. Then it collects what no other entry needs.
//
// Errors are those of Find, and [*InUseError] for an ID that has several names
// (unless forced) or that is part of an index. An error together with a Removed
// says that the names are gone, but that collecting failed.
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) (*Removed, error) {
	removed, err := s.RemoveAll(ctx, []string{ref}, o)
	if removed != nil && len(removed.Failed) > 0 {
		return nil, removed.Failed[0].Err
	}
	return removed, err
}

// RemoveAll is [Store.Remove] of several refs, one after the other, but in one
// step: index.json is written once, and what is free is collected once. What
// can't be removed is told in Failed and keeps nothing else from going. A ref
// that stands for what went with one before it is no failure.
func (s *Store) RemoveAll(ctx context.Context, refs []string, o RemoveOptions) (*Removed, error) {
	return s.removing(ctx, func(x *index, removed *Removed) error {
		before := s.imagesOf(x)
		left := before
		for _, ref := range refs {
			found, err := s.removable(ctx, left, ref, o)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				if _, _, gone := s.find(ctx, before, ref); gone != nil || !errors.As(err, new(*NotFoundError)) {
					removed.Failed = append(removed.Failed, RefError{Ref: ref, Err: err})
				}
				continue
			}
			for _, img := range found {
				x.remove(img, removed)
			}
			left = filter(left, func(i *Image) bool { return !slices.Contains(found, i) })
		}
		return nil
	})
}

// Prune removes the entries that choose picks of all there are, in one step, and
// collects what no other entry needs; also what was left over before. While
// choose is asked nobody else can change a name.
//
// An error together with a Removed says that the entries are gone, but that
// collecting failed.
func (s *Store) Prune(ctx context.Context, choose func([]*Image) ([]*Image, error)) (*Removed, error) {
	removed, err := s.removing(ctx, func(x *index, removed *Removed) error {
		unwanted, err := choose(s.imagesOf(x))
		for _, img := range unwanted {
			x.remove(img, removed)
		}
		return err
	})
	if err == nil && len(removed.Deleted) == 0 {
		removed.Collected, err = s.Collect(ctx)
	}
	return removed, err
}

// removing edits index.json by drop and collects what that set free.
func (s *Store) removing(ctx context.Context, drop func(*index, *Removed) error) (*Removed, error) {
	removed := &Removed{}
	err := s.edit(ctx, func(x *index) (bool, error) {
		before := len(x.entries)
		err := drop(x, removed)
		return len(x.entries) < before, err
	})
	if err != nil {
		return nil, err
	}
	if len(removed.Deleted) > 0 {
		removed.Collected, err = s.Collect(ctx)
	}
	return removed, err
}

// removable finds the entries that ref stands for, if they may go.
func (s *Store) removable(ctx context.Context, all []*Image, ref string, o RemoveOptions) ([]*Image, error) {
	found, byID, err := s.find(ctx, all, ref)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	for n, img := range found {
		names[n] = img.name
		if img.name == "" {
			names[n] = img.refName
		}
	}
	if found[0].entry != nil {
		return nil, &InUseError{Ref: ref, Names: names, Part: true}
	}
	if byID && len(found) > 1 && !o.Force {
		return nil, &InUseError{Ref: ref, Names: names}
	}
	return found, nil
}

// imagesOf are the images of the entries, as [Store.List] returns them.
func (s *Store) imagesOf(x *index) []*Image {
	images := make([]*Image, 0, len(x.entries))
	for _, e := range x.entries {
		if img := s.image(e.listing()); img != nil && e.known.Draft == "" {
			images = append(images, img)
		}
	}
	return images
}

// remove drops img's entry.
func (x *index) remove(img *Image, r *Removed) {
	digest := img.desc.Digest.String()
	i := slices.IndexFunc(x.entries, func(e *entry) bool {
		return e.digest == digest && e.name() == img.name && e.known.RefName == img.refName && e.known.Draft == ""
	})
	if i < 0 {
		return
	}
	x.entries = slices.Delete(x.entries, i, i+1)
	if img.name != "" {
		r.Untagged = append(r.Untagged, img.name)
	}
	if len(x.of(digest)) == 0 {
		r.Deleted = append(r.Deleted, img.desc.Digest)
		r.before = append(r.before, len(r.Untagged))
	}
}
