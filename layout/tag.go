package layout

import (
	"context"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Tag gives img, an entry or a manifest below one, another name. name is a
// repository, "latest" being the default tag. What had the name before stays as
// an untagged entry. A [*NotFoundError] says that img was removed meanwhile.
func (s *Store) Tag(img *Image, name string) error {
	named, err := parseName(name)
	if err != nil {
		return err
	}
	if _, pinned := named.(reference.Digested); pinned {
		return fmt.Errorf("invalid name %q: a tag cannot have a digest", name)
	}
	ctx := context.Background()
	release, err := s.share(ctx) // or the collector could take the image between the check and the name
	if err != nil {
		return err
	}
	defer release()
	if !s.has(img.desc) {
		return &NotFoundError{Ref: img.desc.Digest.String()}
	}
	_, err = s.name(ctx, img.desc, []string{reference.TagNameOnly(named).String()})
	return err
}

// RemoveOptions say how far [Store.Remove] may go.
type RemoveOptions struct {
	Force bool // an ID may have several names, all of which go
}

// Removed is what [Store.Remove] did.
type Removed struct {
	Untagged  []string  // full names that are gone, in index.json's order
	Deleted   []v1.Hash // images (manifests and indexes) that no entry points at any more
	Collected Collected // what that freed; nothing if the store was busy
}

// Remove takes away what ref stands for, as [Store.Find] reads it. A name loses
// its entry, and its image with it if that was the last one; an ID loses all its
// entries. Then it collects what no other entry needs.
//
// Errors are those of Find, and [*InUseError] for an ID that has several names
// (unless forced) or that is part of an index. An error together with a Removed
// says that the names are gone, but that collecting failed.
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) (*Removed, error) {
	found, byID, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := removable(ref, found, byID, o); err != nil {
		return nil, err
	}
	removed := &Removed{}
	err = s.edit(ctx, func(x *index) (bool, error) {
		for _, img := range found {
			x.remove(img, removed)
		}
		return len(removed.Deleted)+len(removed.Untagged) > 0, nil
	})
	if err != nil {
		return nil, err
	}
	if len(removed.Deleted) > 0 {
		removed.Collected, err = s.Collect(ctx)
	}
	return removed, err
}

func removable(ref string, found []*Image, byID bool, o RemoveOptions) error {
	names := make([]string, len(found))
	for n, img := range found {
		names[n] = img.name
		if img.name == "" {
			names[n] = img.refName
		}
	}
	if found[0].entry != nil {
		return &InUseError{Ref: ref, Names: names, Part: true}
	}
	if byID && len(found) > 1 && !o.Force {
		return &InUseError{Ref: ref, Names: names}
	}
	return nil
}

// remove drops img's entry, if it still points where it did when it was found.
func (x *index) remove(img *Image, r *Removed) {
	digest := img.desc.Digest.String()
	i := slices.IndexFunc(x.entries, func(e *entry) bool {
		return e.digest == digest && e.name() == img.name && e.known.RefName == img.refName
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
	}
}
