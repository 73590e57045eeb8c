package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// RemovePlatforms takes the content for these platforms away from the index that
// ref stands for: their manifests, with what attests to them, and what no other
// image needs of their configs and layers. The index and its names stay; a
// later pull brings the rest back. Where nothing would be left, or the image is
// no index, it goes as by [Store.Remove].
//
// It waits until nobody adds blobs. Errors are those of Remove,
// [*platform.NoMatchError] for a platform that the store has nothing of, and
// [*SharedError] where other names need the content too.
func (s *Store) RemovePlatforms(ctx context.Context, ref string, platforms []v1.Platform, o RemoveOptions) (*Removed, error) {
	unlock, err := s.lock(ctx, s.path(storeLock), (*flock.Flock).TryLock,
		fmt.Sprintf("waiting for other processes that add images to the store %q", s.dir))
	if err != nil {
		return nil, err
	}
	defer unlock()
	removed := &Removed{}
	err = s.edit(ctx, func(x *index) (bool, error) {
		all := s.imagesOf(x)
		found, err := s.removable(ctx, all, ref, RemoveOptions{Force: true})
		if err != nil {
			return false, err
		}
		p, err := s.planPlatforms(ctx, found[0], platforms)
		if err != nil {
			return false, err
		}
		if p.left == 0 {
			return true, s.removeWhole(ctx, x, ref, removed, o)
		}
		if err := p.refuseShared(ctx, ref, found, all, o); err != nil {
			return false, err
		}
		return s.removeManifests(ctx, x, p, removed)
	})
	if err != nil {
		return nil, err
	}
	removed.Collected, err = s.collect(ctx)
	return removed, err
}

// removeWhole takes the entries away, the last of whose content is to go.
func (s *Store) removeWhole(ctx context.Context, x *index, ref string, removed *Removed, o RemoveOptions) error {
	found, err := s.removable(ctx, s.imagesOf(x), ref, o)
	for _, img := range found {
		x.remove(img, removed)
	}
	return err
}

// platformsPlan is which manifests of an index are to go.
type platformsPlan struct {
	image  *Image
	images []v1.Descriptor // to go, in the index's order
	all    map[v1.Hash]bool
	left   int              // images that the store still has then
	first  v1.Platform      // one that was asked for, to speak of
	shared map[v1.Hash]bool // digests of the entries whose sizes change
}

func (s *Store) planPlatforms(ctx context.Context, img *Image, platforms []v1.Platform) (*platformsPlan, error) {
	t, err := walk(ctx, img.desc, walker{read: s.read, sparse: true, keep: map[v1.Hash]bool{}})
	if err != nil {
		return nil, err
	}
	found, err := leaves(ctx, s.read, img.desc, true)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(d v1.Descriptor) bool { return !s.has(d) })
	p := &platformsPlan{image: img, all: map[v1.Hash]bool{}, shared: map[v1.Hash]bool{img.desc.Digest: true}}
	for _, want := range platforms {
		before := len(p.all)
		for _, d := range found {
			if d.Platform != nil && platform.Matches(want, platform.Normalize(*d.Platform)) {
				p.all[d.Digest] = true
			}
		}
		if len(p.all) == before {
			return nil, noneOf(want, found)
		}
		p.first = want
	}
	for _, d := range found {
		if p.all[d.Digest] {
			p.images = append(p.images, d)
		}
	}
	p.left = len(found) - len(p.images)
	for _, doc := range t.docs {
		for _, c := range doc.children {
			about, err := v1.NewHash(c.Annotations[platform.AttestationSubject])
			if err == nil && p.all[about] && platform.IsAttestation(c) {
				p.all[c.Digest] = true
			}
		}
	}
	return p, nil
}

func noneOf(want v1.Platform, found []v1.Descriptor) error {
	e := &platform.NoMatchError{Want: platform.Normalize(want)}
	for _, d := range found {
		if d.Platform != nil {
			e.Have = append(e.Have, platform.Normalize(*d.Platform))
		}
	}
	return e
}

// refuseShared keeps others from losing what they need. An entry that points at
// a manifest itself would be left with nothing, so that can't be forced.
func (p *platformsPlan) refuseShared(ctx context.Context, ref string, found, all []*Image, o RemoveOptions) error {
	var whole, part []string
	for _, img := range all {
		switch {
		case p.all[img.desc.Digest]:
			whole = append(whole, img.label())
		case slices.Contains(found, img):
		case img.desc.Digest == p.image.desc.Digest:
			part = append(part, img.label())
		case img.IsIndex():
			holds, err := p.heldBy(ctx, img)
			if err != nil {
				return err
			}
			if holds {
				p.shared[img.desc.Digest] = true
				part = append(part, img.label())
			}
		}
	}
	switch {
	case len(whole) > 0:
		return &SharedError{Ref: ref, Platform: p.first, Names: whole, Whole: true}
	case len(part) > 0 && !o.Force:
		return &SharedError{Ref: ref, Platform: p.first, Names: part}
	}
	return nil
}

// heldBy tells whether another index has one of the manifests too.
func (p *platformsPlan) heldBy(ctx context.Context, img *Image) (bool, error) {
	t, err := walk(ctx, img.desc, walker{read: img.store.read, sparse: true, keep: map[v1.Hash]bool{}})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // what is below it can't be reached by its name any more
	}
	if err != nil {
		return false, err
	}
	for _, doc := range t.docs {
		if slices.ContainsFunc(doc.children, func(c v1.Descriptor) bool { return p.all[c.Digest] }) {
			return true, nil
		}
	}
	return false, nil
}

// label is what to call an entry by: its name, the bare tag, or its ID.
func (i *Image) label() string {
	for _, name := range []string{i.name, i.refName} {
		if name != "" {
			return name
		}
	}
	return i.desc.Digest.String()
}

// removeManifests deletes what leads to the content, and has the entries know
// their new sizes. Who looks in between sees an index of which a part is missing.
func (s *Store) removeManifests(ctx context.Context, x *index, p *platformsPlan, removed *Removed) (changed bool, err error) {
	for _, d := range p.images {
		removed.Deleted = append(removed.Deleted, d.Digest)
		removed.before = append(removed.before, 0)
	}
	for h := range p.all {
		if err := os.Remove(s.BlobPath(h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	for _, img := range s.imagesOf(x) {
		if !p.shared[img.desc.Digest] {
			continue
		}
		now := img.survey(ctx).annotations()
		for _, e := range x.of(img.desc.Digest.String()) {
			c, err := e.annotate(now)
			if err != nil {
				return false, err
			}
			changed = changed || c
		}
	}
	return changed, nil
}
