package layout

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Draft is an index that is being put together from manifests of other images:
// what docker calls a local manifest list. It is an entry of index.json of its
// own kind: no image has its name, [Store.List] and [Store.Find] do not see it,
// and the collector keeps whatever of its content the store has. The index is in
// the store as it would be pushed, byte for byte; of the manifests in it the
// store has each itself, but maybe not what is below.
//
// A Draft is a [Source] of what the store has.
type Draft struct {
	// Members are the manifests, in the order of the index.
	Members []Member
	// Annotations, Subject and ArtifactType are those of the index itself, as the
	// image specification's image-index.md has them. Docker's kind of index has none:
	// with any of them it is one of OCI's.
	Annotations  map[string]string
	Subject      *v1.Descriptor
	ArtifactType string

	store *Store
	name  string
	desc  v1.Descriptor
	raw   []byte // of a draft that is not kept
}

// Name is the full normalised name that the index is to be pushed as.
func (d *Draft) Name() string { return d.name }

// IsNew reports whether there is no such draft in the store yet.
func (d *Draft) IsNew() bool { return d.desc.Digest == v1.Hash{} }

// Descriptor is that of the index as the store has it.
func (d *Draft) Descriptor() v1.Descriptor { return d.desc }

// RawManifest is the index, byte for byte, verified.
func (d *Draft) RawManifest(ctx context.Context) ([]byte, error) {
	if d.raw != nil {
		return d.raw, nil
	}
	return d.store.read(ctx, d.desc, maxManifest)
}

// Open reads a manifest in the index, or any blob of the store, from offset on,
// unverified. The error is an fs.ErrNotExist if the store doesn't have it.
func (d *Draft) Open(ctx context.Context, b v1.Descriptor, offset int64) (io.ReadCloser, error) {
	for _, m := range d.Members {
		if m.Descriptor.Digest == b.Digest && offset >= 0 && offset <= int64(len(m.Raw)) {
			return io.NopCloser(bytes.NewReader(m.Raw[offset:])), nil
		}
	}
	if d.raw != nil && b.Digest == d.desc.Digest && offset >= 0 && offset <= int64(len(d.raw)) {
		return io.NopCloser(bytes.NewReader(d.raw[offset:])), nil
	}
	return (&Image{store: d.store}).Open(ctx, b, offset)
}

// keptMember is what index.json remembers of a member beside its descriptor.
type keptMember struct {
	Ref  string       `json:"ref"`
	From string       `json:"from,omitempty"` // if it is not Ref
	Set  *v1.Platform `json:"set,omitempty"`
	// Notes are the annotations that were set.
	Notes map[string]string `json:"notes,omitempty"`
	Raw   []byte            `json:"raw,omitempty"` // if the store does not have it
}

// keptBeside are the manifests of a draft that index.json has itself; members is
// the entry's annotation. It is never nil.
func keptBeside(members string) map[v1.Hash]bool {
	beside := map[v1.Hash]bool{}
	var kept []keptMember
	if json.Unmarshal([]byte(members), &kept) != nil {
		return beside
	}
	for _, k := range kept {
		if len(k.Raw) > 0 {
			h, _, err := v1.SHA256(bytes.NewReader(k.Raw))
			if err == nil {
				beside[h] = true
			}
		}
	}
	return beside
}

// DraftNames are the full names of all drafts, in index.json's order.
func (s *Store) DraftNames() ([]string, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range entries {
		if name := entries[i].Annotations.Draft; name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// Draft returns the draft of this name; "latest" is the default tag. The error
// is a [*NotFoundError] if there is none.
func (s *Store) Draft(ctx context.Context, name string) (*Draft, error) {
	full, err := draftName(name)
	if err != nil {
		return nil, err
	}
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(entries, func(e listed) bool { return e.Annotations.Draft == full })
	if i < 0 {
		return nil, &NotFoundError{Ref: full}
	}
	return s.readDraft(ctx, full, &entries[i])
}

// EditDraft has edit change the members of the draft called name, which is new
// where there is none, and keeps what comes out as one step: nobody else can
// edit it meanwhile, and if edit fails nothing has changed. edit must not use
// the store for writing.
func (s *Store) EditDraft(ctx context.Context, name string, edit func(*Draft) error) (*Draft, error) {
	full, err := draftName(name)
	if err != nil {
		return nil, err
	}
	release, err := s.share(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	var d *Draft
	err = s.edit(ctx, func(x *index) (changed bool, err error) {
		e := x.draft(full)
		if e == nil {
			d = &Draft{store: s, name: full}
		} else if d, err = s.readDraft(ctx, full, e.listing()); err != nil {
			return false, err
		}
		if err = edit(d); err != nil {
			return false, err
		}
		next, err := s.writeDraft(d)
		if err != nil {
			return false, err
		}
		if e == nil {
			x.entries = append(x.entries, next)
			return true, nil
		}
		changed = string(e.raw) != string(next.raw)
		*e = *next
		return changed, nil
	})
	return d, err
}

// PassingDraft is a new draft called name with the members that edit gives it. It is
// not kept: a draft of that name in the store stays as it is.
func (s *Store) PassingDraft(name string, edit func(*Draft) error) (*Draft, error) {
	full, err := draftName(name)
	if err != nil {
		return nil, err
	}
	d := &Draft{store: s, name: full}
	if err := edit(d); err != nil {
		return nil, err
	}
	d.raw, d.desc, err = d.assemble()
	return d, err
}

// RemoveDraft takes the draft of this name away, and collects what only it kept.
// The error is a [*NotFoundError] if there is none.
func (s *Store) RemoveDraft(ctx context.Context, name string) error {
	full, err := draftName(name)
	if err != nil {
		return err
	}
	err = s.edit(ctx, func(x *index) (bool, error) {
		e := x.draft(full)
		if e == nil {
			return false, &NotFoundError{Ref: full}
		}
		x.drop(e)
		return true, nil
	})
	if err != nil {
		return err
	}
	_, err = s.Collect(ctx)
	return err
}

func draftName(name string) (string, error) {
	named, err := parseName(name)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(named).String(), nil
}

// draft is the entry of the draft called name, or nil.
func (x *index) draft(name string) *entry {
	i := slices.IndexFunc(x.entries, func(e *entry) bool { return e.known.Draft == name })
	if i < 0 {
		return nil
	}
	return x.entries[i]
}

// readDraft is the draft that e is.
func (s *Store) readDraft(ctx context.Context, name string, e *listed) (*Draft, error) {
	what := "manifest list " + name
	digest, err := v1.NewHash(e.Digest)
	var kept []keptMember
	if err == nil {
		err = json.Unmarshal([]byte(e.Annotations.Members), &kept)
	}
	if err != nil {
		return nil, &InvalidError{What: what, Reason: "not as wherry writes it", Err: err}
	}
	d := &Draft{store: s, name: name, desc: v1.Descriptor{MediaType: e.MediaType, Size: e.Size, Digest: digest}}
	doc, err := readDocument(ctx, s.read, d.desc)
	if err == nil {
		err = d.readOwn(doc.raw)
	}
	if err != nil {
		return nil, err
	}
	if len(doc.children) != len(kept) {
		return nil, invalid(what, "it has %d manifests, and names for %d", len(doc.children), len(kept))
	}
	for i, k := range kept {
		m := Member{Ref: k.Ref, From: cmp.Or(k.From, k.Ref), Descriptor: doc.children[i], Raw: k.Raw, Notes: k.Notes}
		if k.Set != nil {
			m.Set = *k.Set
		}
		if len(m.Raw) > 0 {
			err = verify(m.Descriptor, m.Raw)
		} else {
			m.Raw, err = s.read(ctx, m.Descriptor, maxManifest)
		}
		if err != nil {
			return nil, err
		}
		d.Members = append(d.Members, m)
	}
	return d, nil
}

// Like has the draft say of itself what another index says, which raw is. A raw that
// is no index says nothing.
func (d *Draft) Like(raw []byte) error {
	doc, err := parseDocument(v1.Descriptor{}, raw)
	if err != nil || !doc.isIndex() {
		return err
	}
	return d.readOwn(raw)
}

// readOwn reads what the index says of itself.
func (d *Draft) readOwn(raw []byte) error {
	var own struct {
		Annotations  map[string]string `json:"annotations"`
		Subject      *v1.Descriptor    `json:"subject"`
		ArtifactType string            `json:"artifactType"`
	}
	if err := parseJSON(raw, &own); err != nil {
		return &InvalidError{What: "manifest list " + d.name, Reason: "not an index", Err: err}
	}
	d.Annotations, d.Subject, d.ArtifactType = own.Annotations, own.Subject, own.ArtifactType
	return nil
}

// writeDraft brings d's index into the store, and returns its entry.
func (s *Store) writeDraft(d *Draft) (*entry, error) {
	raw, desc, err := d.assemble()
	if err != nil {
		return nil, err
	}
	kept := make([]keptMember, len(d.Members))
	for i, m := range d.Members {
		if err := verify(m.Descriptor, m.Raw); err != nil {
			return nil, err
		}
		kept[i] = m.keep(s.has(m.Descriptor))
	}
	members, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.writeBlob(desc, raw), s.syncBlobs([]v1.Descriptor{desc})); err != nil {
		return nil, err
	}
	d.desc = desc
	e := desc
	e.Annotations = map[string]string{draftAnnotation: d.name, membersAnnotation: string(members)}
	return newEntry(e)
}

// assemble is the index over the members: docker's kind if all of them are
// docker's and nothing is annotated, and the same bytes that docker would push.
func (d *Draft) assemble() ([]byte, v1.Descriptor, error) {
	x := v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.DockerManifestList, Manifests: []v1.Descriptor{},
		Annotations: d.Annotations, Subject: d.Subject, ArtifactType: d.ArtifactType,
	}
	if len(d.Members) == 0 || len(d.Annotations) > 0 || d.Subject != nil || d.ArtifactType != "" {
		x.MediaType = types.OCIImageIndex
	}
	for _, m := range d.Members {
		if m.Descriptor.MediaType != types.DockerManifestSchema2 || len(m.Notes) > 0 {
			x.MediaType = types.OCIImageIndex
		}
		x.Manifests = append(x.Manifests, m.Descriptor)
	}
	raw, err := json.MarshalIndent(x, "", "   ")
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	if len(raw) > maxManifest {
		return nil, v1.Descriptor{}, invalid("manifest list", "would be larger than %d bytes", maxManifest)
	}
	h, err := v1.Hasher("sha256")
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	h.Write(raw)
	return raw, v1.Descriptor{MediaType: x.MediaType, Size: int64(len(raw)), Digest: sum("sha256", h)}, nil
}
