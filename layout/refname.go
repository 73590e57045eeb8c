package layout

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// refNamed are the annotations of an entry that is called ref and nothing else:
// other tools compare them byte for byte. A name that says where an image comes
// from is written out beside it, as containerd does.
func refNamed(ref string) map[string]string {
	if ref == "" {
		return nil
	}
	set := map[string]string{refNameAnnotation: ref}
	if name, _ := entryName("", ref); name != "" {
		set[nameAnnotation] = name
	}
	return set
}

// refer makes ref point at d, whose content is in the store.
func (s *Store) refer(ctx context.Context, d v1.Descriptor, ref string) (*Image, error) {
	if strings.ContainsFunc(ref, func(r rune) bool { return r < ' ' || r > '~' }) || len(ref) > maxName {
		return nil, errors.New("a name in a layout has printable ASCII characters only")
	}
	img := s.surveyed(ctx, d)
	img.name, img.refName = refNamed(ref)[nameAnnotation], ref
	set := refNamed(ref)
	set[taggedAnnotation] = time.Now().UTC().Format(time.RFC3339Nano)
	return img, s.edit(ctx, func(x *index) (changed bool, err error) {
		for _, e := range slices.Clone(x.entries) {
			if !e.called(ref, img.name) {
				continue
			}
			if e.digest == d.Digest.String() && e.known.RefName == ref {
				return false, nil
			}
			if err := x.unname(e); err != nil {
				return false, err
			}
		}
		if err := x.add(d, set); err != nil {
			return false, err
		}
		_, err = x.entries[len(x.entries)-1].annotate(img.facts.annotations())
		return true, err
	})
}

// referAll gives what was loaded the bare tags it came with.
func (s *Store) referAll(ctx context.Context, found []*loaded) error {
	for _, l := range found {
		for _, ref := range l.refs {
			if _, err := s.refer(ctx, l.desc, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// called reports whether e answers to a bare ref, or to the full name it means.
func (e *entry) called(ref, name string) bool {
	if e.known.Draft != "" {
		return false
	}
	return e.known.RefName == ref || name != "" && e.name() == name
}

// Referrers lists what refers to subject in the repository repo, a full normalised
// name without a tag, or in the whole layout if repo is "". A layout has no place
// for that; what tools agree on is an index called as the tag that stands in for
// it in registries ("sha256-" and the digits), and manifests without a name.
func (s *Store) Referrers(ctx context.Context, repo string, subject v1.Hash) ([]v1.Descriptor, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []v1.Descriptor
	tag := subject.Algorithm + "-" + subject.Hex
	for _, img := range all {
		switch {
		case img.tagIn(repo) == tag && img.IsIndex():
			doc, err := readDocument(ctx, s.read, img.desc)
			if err != nil {
				return nil, err
			}
			found = append(found, doc.children...)
		case img.name == "" && img.refName == "" && s.refersTo(ctx, img.desc, subject):
			found = append(found, img.desc)
		}
	}
	seen := map[v1.Hash]bool{}
	return slices.DeleteFunc(found, func(d v1.Descriptor) bool {
		again := seen[d.Digest]
		seen[d.Digest] = true
		return again || !s.has(d)
	}), nil
}

// Tags are those of the repository repo, as for [Store.Referrers].
func (s *Store) Tags(repo string) (map[string]*Image, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	tags := map[string]*Image{}
	for _, img := range all {
		if tag := img.tagIn(repo); tag != "" {
			tags[tag] = img
		}
	}
	return tags, nil
}

// tagIn is what i is called in repo, "" if it is not of it. A bare tag is one of
// every repository.
func (i *Image) tagIn(repo string) string {
	if i.name == "" {
		return i.refName
	}
	named, err := reference.ParseNormalizedNamed(i.name)
	if err != nil || repo != "" && named.Name() != repo {
		return ""
	}
	if t, ok := named.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

func (s *Store) refersTo(ctx context.Context, d v1.Descriptor, subject v1.Hash) bool {
	raw, err := s.read(ctx, d, maxManifest)
	if err != nil {
		return false
	}
	var m struct {
		Subject *v1.Descriptor `json:"subject"`
	}
	return parseJSON(raw, &m) == nil && m.Subject != nil && m.Subject.Digest == subject
}
