package layout

import (
	"context"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// Member is one manifest of a [Draft].
type Member struct {
	// Ref is the full normalised name of the manifest where it was found; of one
	// that was below an index, with its own digest.
	Ref string
	// From is what was asked for to get it: Ref, or the name of the index.
	From string
	// Descriptor is what the index says of the manifest.
	Descriptor v1.Descriptor
	// Set is what of the platform was set by [Member.Annotate].
	Set v1.Platform
	// Notes are those of the annotations that were set by [Member.Note].
	Notes map[string]string
	// Raw is the manifest, byte for byte.
	Raw []byte
}

// Annotate sets those parts of the platform that p has, and adds p's features of
// the system to those that are there.
func (m *Member) Annotate(p v1.Platform) {
	m.Set = overlay(m.Set, p)
	var was v1.Platform
	if m.Descriptor.Platform != nil {
		was = *m.Descriptor.Platform
	}
	now := overlay(was, p)
	m.Descriptor.Platform = &now
}

// Note sets annotations in the index's descriptor of the manifest; an empty value
// takes one away.
func (m *Member) Note(set map[string]string) {
	m.Notes = noted(m.Notes, set, true)
	m.Descriptor.Annotations = noted(m.Descriptor.Annotations, set, false)
}

// Note is [Member.Note] for the annotations of the index itself.
func (d *Draft) Note(set map[string]string) { d.Annotations = noted(d.Annotations, set, false) }

// noted is was with what set says. What is taken away is remembered where keep is
// true, to be taken away again.
func noted(was, set map[string]string, keep bool) map[string]string {
	now := maps.Clone(was)
	if now == nil {
		now = map[string]string{}
	}
	maps.Copy(now, set)
	if !keep {
		maps.DeleteFunc(now, func(k, v string) bool {
			_, ours := set[k]
			return ours && v == ""
		})
	}
	if len(now) == 0 {
		return nil
	}
	return now
}

func overlay(base, p v1.Platform) v1.Platform {
	for _, field := range []struct {
		to   *string
		from string
	}{
		{&base.OS, p.OS},
		{&base.Architecture, p.Architecture},
		{&base.Variant, p.Variant},
		{&base.OSVersion, p.OSVersion},
	} {
		if field.from != "" {
			*field.to = field.from
		}
	}
	base.OSFeatures = slices.Clone(base.OSFeatures)
	for _, f := range p.OSFeatures {
		if !slices.Contains(base.OSFeatures, f) {
			base.OSFeatures = append(base.OSFeatures, f)
		}
	}
	return base
}

func (m *Member) isSet() bool { return !m.Set.Equals(v1.Platform{}) }

// keep is what index.json has to remember of m; stored tells whether the store
// has the manifest.
func (m *Member) keep(stored bool) keptMember {
	k := keptMember{Ref: m.Ref}
	if !stored {
		k.Raw = m.Raw
	}
	if m.From != m.Ref {
		k.From = m.From
	}
	if m.isSet() {
		k.Set = &m.Set
	}
	k.Notes = m.Notes
	return k
}

// Put adds the members that came from one name, in place of those that had come
// from it before. What was annotated stays annotated: of the same manifest, or
// of the only one that the name stood for and stands for now.
func (d *Draft) Put(members []Member) {
	if len(members) == 0 {
		return
	}
	from := members[0].From
	var before, rest []Member
	at := len(d.Members)
	for _, m := range d.Members {
		if m.From != from {
			rest = append(rest, m)
			continue
		}
		if len(before) == 0 {
			at = len(rest)
		}
		before = append(before, m)
	}
	at = min(at, len(rest))
	members = slices.Clone(members)
	for i := range members {
		m := &members[i]
		was := slices.IndexFunc(before, func(b Member) bool { return b.Descriptor.Digest == m.Descriptor.Digest })
		if was < 0 && len(before) == 1 && len(members) == 1 {
			was = 0
		}
		if was >= 0 && before[was].isSet() {
			m.Annotate(before[was].Set)
		}
		if was >= 0 && len(before[was].Notes) > 0 {
			m.Note(before[was].Notes)
		}
	}
	d.Members = slices.Insert(rest, at, members...)
}

// Remove takes the members that gone is true of out of the draft, with the
// attestations about them, and returns them all.
func (d *Draft) Remove(gone func(*Member) bool) []Member {
	away := map[string]bool{}
	for i := range d.Members {
		if m := &d.Members[i]; gone(m) {
			away[m.Descriptor.Digest.String()] = true
		}
	}
	var kept, removed []Member
	for _, m := range d.Members {
		if away[m.Descriptor.Digest.String()] || away[m.Descriptor.Annotations[platform.AttestationSubject]] {
			removed = append(removed, m)
		} else {
			kept = append(kept, m)
		}
	}
	d.Members = kept
	return removed
}

// MembersFor are those of the members that are for one of the platforms, with the
// attestations about them.
func MembersFor(all []Member, platforms []v1.Platform) []Member {
	fits := func(m Member) bool {
		p := m.Descriptor.Platform
		return p != nil && slices.ContainsFunc(platforms, func(want v1.Platform) bool { return platform.Matches(want, *p) })
	}
	wanted := map[string]bool{}
	for _, m := range all {
		if fits(m) {
			wanted[m.Descriptor.Digest.String()] = true
		}
	}
	var some []Member
	for _, m := range all {
		if wanted[m.Descriptor.Digest.String()] || wanted[m.Descriptor.Annotations[platform.AttestationSubject]] {
			some = append(some, m)
		}
	}
	return some
}

// Members reads src as members of a draft: the manifest that it is, or those
// below the index that it is, attestations too. from is src's full normalised
// name, refOf makes one with a digest of it. Platforms that no index states are
// read from the configs; artifacts have none.
func Members(ctx context.Context, src Source, from string, refOf func(v1.Hash) string) ([]Member, error) {
	read := func(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
		r, err := src.Open(ctx, d, 0)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readVerified(r, d, limit)
	}
	return members(ctx, read, src.Descriptor(), Member{From: from}, refOf, nil)
}

// Members is the function of this name for an image in the store, of which it
// returns what the store has whole. missing are the platforms left out.
func (i *Image) Members(ctx context.Context, from string, refOf func(v1.Hash) string) (found []Member, missing []v1.Platform, err error) {
	has := func(d v1.Descriptor) bool {
		_, whole, err := i.store.weigh(ctx, d)
		if err != nil || !whole {
			if d.Platform != nil && !platform.IsAttestation(d) {
				missing = append(missing, *d.Platform)
			}
			return false
		}
		return true
	}
	found, err = members(ctx, i.store.read, i.desc, Member{From: from}, refOf, has)
	return found, missing, err
}

// members of root that has is true of; a nil one is true of all.
func members(ctx context.Context, read reader, root v1.Descriptor, like Member, refOf func(v1.Hash) string, has func(v1.Descriptor) bool) ([]Member, error) {
	t, err := walk(ctx, root, walker{read: read, sparse: has != nil})
	if err != nil {
		return nil, err
	}
	if len(t.docs) == 0 {
		return nil, invalid("image "+root.Digest.String(), "no manifest, but of type %q", root.MediaType)
	}
	if doc := t.docs[0]; !doc.isIndex() {
		if has != nil && !has(doc.desc) {
			return nil, &MissingError{Digest: root.Digest}
		}
		m, err := like.of(ctx, read, doc, doc.desc)
		m.Ref = like.From
		return []Member{m}, err
	}
	docs := map[v1.Hash]*document{}
	for _, doc := range t.docs {
		docs[doc.desc.Digest] = doc
	}
	var found []Member
	for _, doc := range t.docs {
		for _, c := range doc.children {
			child := docs[c.Digest]
			switch {
			case child != nil && child.isIndex(), has != nil && !has(c):
				continue
			case child == nil:
				return nil, invalid("index "+doc.desc.Digest.String(), "%s in it is no manifest", c.Digest)
			}
			c.MediaType = child.desc.MediaType
			m, err := like.of(ctx, read, child, c)
			if err != nil {
				return nil, err
			}
			m.Ref = refOf(c.Digest)
			found = append(found, m)
		}
	}
	return withSubject(found), nil
}

// of is the member that a manifest becomes which its index describes as d.
func (m Member) of(ctx context.Context, read reader, doc *document, d v1.Descriptor) (Member, error) {
	m.Raw = doc.raw
	m.Descriptor = v1.Descriptor{
		MediaType: d.MediaType, Size: d.Size, Digest: d.Digest, Platform: d.Platform,
		Annotations: d.Annotations, ArtifactType: d.ArtifactType,
	}
	if d.Platform != nil || doc.config == nil || !doc.config.MediaType.IsConfig() {
		return m, nil
	}
	raw, err := read(ctx, *doc.config, maxConfig)
	if err != nil {
		return m, err
	}
	c, err := parseConfig(*doc.config, raw)
	if err != nil {
		return m, err
	}
	if m.Descriptor.Platform = c.Platform(); c.OS == "" && c.Architecture != "" {
		m.Descriptor.Platform.OS = "linux"
	}
	return m, nil
}

// withSubject drops attestations of what is not among the members.
func withSubject(found []Member) []Member {
	return slices.DeleteFunc(found, func(m Member) bool {
		of := m.Descriptor.Annotations[platform.AttestationSubject]
		return of != "" && !slices.ContainsFunc(found, func(o Member) bool { return o.Descriptor.Digest.String() == of })
	})
}
