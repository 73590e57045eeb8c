package layout

import (
	"context"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// Find returns what a user means by ref: a name ("alpine" is
// docker.io/library/alpine:latest), a name with a digest, or the beginning of an
// ID, with or without "sha256:" in front. An ID is the digest of what an entry
// points at; if none fits, of a manifest below an index, or of a config. A name
// goes before an ID.
//
// All entries that match are returned, at least one: an ID may have several
// names. What is below an index comes as [Image.Select] returns it. Errors are
// [*NotFoundError] and [*AmbiguousError].
func (s *Store) Find(ref string) ([]*Image, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	images, _, err := s.find(context.Background(), all, ref)
	return images, err
}

// FindAmong is [Store.Find] in what [Store.List] has returned, for who looks up
// more than one.
func (s *Store) FindAmong(ctx context.Context, all []*Image, ref string) ([]*Image, error) {
	images, _, err := s.find(ctx, all, ref)
	return images, err
}

// find looks through these entries, and tells whether ref is an ID.
func (s *Store) find(ctx context.Context, all []*Image, ref string) (images []*Image, byID bool, err error) {
	if images, err = s.findName(ctx, all, ref); len(images) > 0 || err != nil {
		return images, false, err
	}
	if prefix, ok := idPrefix(ref); ok {
		if images, err = s.findID(ctx, all, ref, prefix); len(images) > 0 || err != nil {
			return images, true, err
		}
	}
	return nil, false, &NotFoundError{Ref: ref}
}

// findName finds entries by name, by name and digest, or by the bare tag that
// another tool wrote.
func (s *Store) findName(ctx context.Context, all []*Image, ref string) ([]*Image, error) {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		if pinned, ok := named.(reference.Digested); ok {
			return s.findPinned(ctx, all, named, pinned.Digest().String())
		}
		full := reference.TagNameOnly(named).String()
		if found := filter(all, func(i *Image) bool { return i.name == full }); len(found) > 0 {
			return found, nil
		}
	}
	return filter(all, func(i *Image) bool { return i.name == "" && i.refName == ref && ref != "" }), nil
}

// findPinned finds a digest in the entries of a repository, or below them.
func (s *Store) findPinned(ctx context.Context, all []*Image, repo reference.Named, digest string) ([]*Image, error) {
	var in []*Image
	for _, i := range all {
		if i.name == "" {
			continue
		}
		if named, err := reference.ParseNormalizedNamed(i.name); err == nil && named.Name() == repo.Name() {
			in = append(in, i)
		}
	}
	if found := filter(in, func(i *Image) bool { return i.desc.Digest.String() == digest }); len(found) > 0 {
		return found, nil
	}
	return s.findBelow(ctx, in, func(h v1.Hash) bool { return h.String() == digest })
}

// idPrefix takes "sha256:" away from what may be the beginning of an ID.
func idPrefix(ref string) (prefix string, ok bool) {
	prefix = strings.TrimPrefix(ref, "sha256:")
	return prefix, prefix != "" && strings.Trim(prefix, "0123456789abcdef") == ""
}

func (s *Store) findID(ctx context.Context, all []*Image, ref, prefix string) ([]*Image, error) {
	fits := func(h v1.Hash) bool { return strings.HasPrefix(h.Hex, prefix) }
	found := filter(all, func(i *Image) bool { return fits(i.desc.Digest) })
	if len(found) == 0 {
		var err error
		if found, err = s.findBelow(ctx, all, fits); err != nil {
			return nil, err
		}
	}
	var ids []v1.Hash
	seen := map[v1.Hash]bool{}
	for _, i := range found {
		if h := i.desc.Digest; !seen[h] {
			seen[h] = true
			ids = append(ids, h)
		}
	}
	if len(ids) > 1 {
		return nil, &AmbiguousError{Ref: ref, IDs: ids}
	}
	return found, nil
}

// findBelow looks at the manifests below the entries, and at the configs. What
// can't be read has nothing below it: a damaged image must not hide another.
func (s *Store) findBelow(ctx context.Context, entries []*Image, fits func(v1.Hash) bool) ([]*Image, error) {
	slot := map[v1.Hash]int{}
	var roots []v1.Descriptor
	for _, e := range entries {
		if _, ok := slot[e.desc.Digest]; !ok {
			slot[e.desc.Digest] = len(roots)
			roots = append(roots, e.desc)
		}
	}
	below := make([][]v1.Descriptor, len(roots))
	err := each(ctx, len(roots), func(ctx context.Context, i int) error {
		below[i] = s.matchBelow(ctx, roots[i], fits)
		return nil
	})
	var found []*Image
	for _, e := range entries {
		for _, d := range below[slot[e.desc.Digest]] {
			found = append(found, e.below(d))
		}
	}
	return found, err
}

func (s *Store) matchBelow(ctx context.Context, d v1.Descriptor, fits func(v1.Hash) bool) []v1.Descriptor {
	t, err := walk(ctx, d, walker{read: s.read, sparse: true})
	if err != nil {
		return nil
	}
	var found []v1.Descriptor
	for _, doc := range t.docs {
		byDigest := doc.desc.Digest != d.Digest && fits(doc.desc.Digest)
		if byDigest || doc.config != nil && fits(doc.config.Digest) {
			found = append(found, doc.desc)
		}
	}
	return found
}

func filter(all []*Image, keep func(*Image) bool) []*Image {
	var kept []*Image
	for _, i := range all {
		if keep(i) {
			kept = append(kept, i)
		}
	}
	return kept
}

// Lookup returns the manifest that name stands for on platform p, if the store
// has it and its config; the descriptor carries the platform. name has a tag, or
// the digest of a manifest or of an index. The answer is the one that a registry would
// give: of an index what serves p best, be it an older variant, and nothing worse than
// what is in the index and not in the store. An image that is in no index has to be for
// p itself. Layers may be missing. Errors are [*NotFoundError], and
// [*platform.NoMatchError] with what the store does have.
func (s *Store) Lookup(ctx context.Context, name reference.Named, p v1.Platform) (v1.Descriptor, error) {
	found, err := s.lookupEntries(ctx, name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	var all, here []v1.Descriptor
	for _, img := range found {
		stated, present, err := img.present(ctx)
		if err != nil {
			return v1.Descriptor{}, err
		}
		confirmed := map[v1.Hash]v1.Descriptor{}
		for _, d := range present {
			if ctx.Err() != nil {
				return v1.Descriptor{}, ctx.Err()
			}
			if d, err = s.confirm(ctx, d); err != nil {
				return v1.Descriptor{}, err
			}
			confirmed[d.Digest], here = d, append(here, d)
		}
		for _, d := range stated {
			if c, ok := confirmed[d.Digest]; ok {
				d = c
			}
			all = append(all, d)
		}
	}
	if len(found) > 0 && !found[0].IsIndex() && (len(here) == 0 || here[0].Platform == nil || !platform.Matches(p, *here[0].Platform)) {
		return v1.Descriptor{}, noneOf(p, here)
	}
	return selectPresent(all, here, p)
}

// lookupEntries finds what a FROM names. A digest says all, whatever the
// repository it was pulled from.
func (s *Store) lookupEntries(ctx context.Context, name reference.Named) ([]*Image, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []*Image
	if pinned, ok := name.(reference.Digested); ok {
		digest := pinned.Digest().String()
		found = filter(all, func(i *Image) bool { return i.desc.Digest.String() == digest })
		if len(found) == 0 {
			found, err = s.findBelow(ctx, filter(all, (*Image).IsIndex), func(h v1.Hash) bool { return h.String() == digest })
		}
	} else {
		full := reference.TagNameOnly(name).String()
		found = filter(all, func(i *Image) bool { return i.name == full })
	}
	if err == nil && len(found) == 0 {
		err = &NotFoundError{Ref: reference.FamiliarString(name)}
	}
	return found[:min(1, len(found))], err
}

// confirm checks the platform that an index states against the config, which
// decides. Configs often leave the variant out; then the index's stands.
func (s *Store) confirm(ctx context.Context, d v1.Descriptor) (v1.Descriptor, error) {
	stated := d.Platform
	d.Platform = nil
	d, err := withPlatform(ctx, s.read, d)
	if err != nil || d.Platform == nil || stated == nil {
		return d, err
	}
	want := platform.Normalize(*stated)
	if want.OS == d.Platform.OS && want.Architecture == d.Platform.Architecture {
		d.Platform = &want
	}
	return d, nil
}
