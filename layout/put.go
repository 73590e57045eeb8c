package layout

import (
	"context"
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// PutOptions say what of an image is put, and under which names.
type PutOptions struct {
	// Names are full normalised names, or what normalises to one: each becomes
	// an entry of index.json. Without any, the image gets an untagged entry
	// unless its digest has an entry already.
	Names []string
	// RefName, if not "", is what stands in place of a name, as it is: what other
	// tools look up in a layout, such as a bare tag. Whatever has it loses it.
	RefName string
	// Platforms are those children of an index whose content is wanted, nil all
	// of them. index.json still points at the index itself; the specification
	// allows blobs below it to be missing. An image that is no index, and states
	// its platform, must serve them.
	Platforms []v1.Platform
	// Progress is told of configs and layers, not of manifests.
	Progress Progress
}

// Put brings an image or index, and everything below it, from src into the
// store and names it. Blobs that are there already are not read; a transfer
// that broke off, in this process or another, is resumed. Every byte is
// verified and on disk before the first name points at it; if anything fails,
// no name changes.
//
// An image that loses a name to the new one stays as an untagged entry.
//
// Errors are [*DigestError], [*InvalidError], [*platform.NoMatchError] (before
// any layer is read), or the source's own.
func (s *Store) Put(ctx context.Context, src Source, o PutOptions) (*Image, error) {
	root := src.Descriptor()
	names, err := entryNames(o.Names, root.Digest)
	if err != nil {
		return nil, err
	}
	if err := checkDescriptor(root, "the image's descriptor"); err != nil {
		return nil, err
	}
	img, err := s.putShared(ctx, src, o, names)
	if err != nil && !resumable(err) {
		_, _ = s.Collect(ctx) // what came in before the failure; if it can't be done now, then later
	}
	return img, err
}

// resumable errors leave what was fetched for the next try.
func resumable(err error) bool {
	var broken *sourceError
	return errors.As(err, &broken) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Adopt is [Store.Put] of everything below src, for who knows the store by an
// interface without the types of this package. Files that src has by a Path are
// hard-linked.
func (s *Store) Adopt(ctx context.Context, src Source, names []string) (v1.Descriptor, error) {
	img, err := s.Put(ctx, src, PutOptions{Names: names})
	if err != nil {
		return v1.Descriptor{}, err
	}
	return img.Descriptor(), nil
}

func (s *Store) putShared(ctx context.Context, src Source, o PutOptions, names []string) (*Image, error) {
	release, err := s.share(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	p := &putter{store: s, src: src, docs: map[v1.Hash][]byte{}}
	t, err := p.plan(ctx, o.Platforms)
	if err != nil {
		return nil, err
	}
	if err := p.fetch(ctx, t, o.Progress); err != nil {
		return nil, err
	}
	root := src.Descriptor()
	root.Annotations, root.URLs, root.Data = nil, nil, nil
	if len(t.docs) > 0 {
		root.MediaType = t.docs[0].desc.MediaType
	}
	if o.RefName != "" {
		return s.refer(ctx, root, o.RefName)
	}
	return s.name(ctx, root, names)
}

// surveyed is an image of d, which is in the store, with its facts at hand.
func (s *Store) surveyed(ctx context.Context, d v1.Descriptor) *Image {
	img := &Image{store: s, desc: d}
	img.facts = remember(img.survey(ctx))
	return img
}

// name makes names point at d, whose content is in the store, in one step. The
// image that comes back has the first one.
func (s *Store) name(ctx context.Context, d v1.Descriptor, names []string) (*Image, error) {
	images, err := s.nameAll(ctx, []*loaded{{desc: d, names: names}})
	if err != nil {
		return nil, err
	}
	return images[0], nil
}

// pointTo makes the image's name point at it, and every entry of its digest know
// its facts.
func (x *index) pointTo(img *Image, now time.Time) (changed bool, err error) {
	if changed, err = x.point(img.desc, img.name, now); err != nil {
		return false, err
	}
	facts := img.facts.annotations()
	for _, e := range x.of(img.desc.Digest.String()) {
		if e.known.Size == facts[sizeAnnotation] && e.known.Created == facts[createdAnnotation] {
			continue // an image may have thousands of names
		}
		c, err := e.annotate(facts)
		if err != nil {
			return false, err
		}
		changed = changed || c
	}
	return changed, nil
}

// putter is one Put.
type putter struct {
	store *Store
	src   Source
	docs  map[v1.Hash][]byte // manifests read, and configs that were looked into
	bytes int64
}

// plan reads the manifests and finds out which blobs are wanted.
func (p *putter) plan(ctx context.Context, want []v1.Platform) (*tree, error) {
	root := p.src.Descriptor()
	w := walker{read: p.read}
	if len(want) > 0 {
		found, err := leaves(ctx, p.read, root, false)
		if err != nil {
			return nil, err
		}
		if w.keep, err = choose(found, want); err != nil {
			return nil, err
		}
	}
	return walk(ctx, root, w)
}

// read is the [reader] of the source, which asks it only for what the store
// doesn't have.
func (p *putter) read(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	if raw, ok := p.docs[d.Digest]; ok {
		return raw, nil
	}
	raw, err := d.Data, error(nil)
	if len(raw) == 0 || verify(d, raw) != nil {
		if raw, err = p.store.read(ctx, d, limit); err != nil {
			raw, err = p.readSource(ctx, d, limit)
		}
	}
	if err != nil {
		return nil, err
	}
	if p.bytes += int64(len(raw)); p.bytes > maxDocuments {
		return nil, invalid("blob "+d.Digest.String(), "more than %d bytes of manifests below one image", maxDocuments)
	}
	p.docs[d.Digest] = raw
	return raw, nil
}

func (p *putter) readSource(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, invalid("blob "+d.Digest.String(), "%d bytes, which is more than the %d it may have", d.Size, limit)
	}
	r, err := p.src.Open(ctx, d, 0)
	if err != nil {
		return nil, &sourceError{err}
	}
	defer r.Close()
	return readVerified(r, d, limit)
}

// fetch brings everything in t into the store.
func (p *putter) fetch(ctx context.Context, t *tree, progress Progress) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxLanes)
	l := newLanes()
	looking, stop := context.WithCancel(gctx)
	defer stop()
	go l.run(looking)
	for _, d := range t.blobs {
		g.Go(func() error { return p.store.fetch(gctx, p.src, d, l, progress) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.store.syncBlobs(t.blobs); err != nil {
		return err
	}
	return p.store.writeDocuments(ctx, t.docs)
}

// writeDocuments brings manifests into the store, durably. What is below them is
// there already: a manifest of an index that the store has makes its platform
// one that counts as present.
func (s *Store) writeDocuments(ctx context.Context, docs []*document) error {
	var added []v1.Descriptor
	err := each(ctx, len(docs), func(_ context.Context, i int) error { return s.writeBlob(docs[i].desc, docs[i].raw) })
	for _, doc := range docs {
		added = append(added, doc.desc)
	}
	return errors.Join(err, s.syncBlobs(added))
}
