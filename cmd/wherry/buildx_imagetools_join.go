package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// The annotation of attestations in an index, beside [platform.AttestationSubject].
const (
	attestationType     = "vnd.docker.reference.type"
	attestationManifest = "attestation-manifest" // of the type
)

// joining makes an index of sources, the very bytes that buildx v0.38 makes
// (util/imagetools/create.go there).
type joining struct {
	say         func(format string, args ...any)
	annotations []imagetoolsAnnotation
	platforms   []v1.Platform // empty: all of them
	preferIndex bool

	raw  []byte
	desc ocispecs.Descriptor
	from map[digest.Digest]*imageSource // of each manifest in the index
	only *imageSource                   // of a copy: what is copied
}

func (j *joining) join(ctx context.Context, client *registry.Client, sources []*imageSource) error {
	if len(sources) == 1 && len(j.annotations) == 0 {
		s := sources[0]
		isIndex := isIndexType(s.desc.MediaType)
		if isIndex || !j.preferIndex {
			j.raw, j.desc, j.only = s.raw, s.desc, s
			j.from = map[digest.Digest]*imageSource{}
			if !isIndex {
				return j.fits()
			}
		}
	}
	if j.raw == nil {
		if err := j.combine(sources); err != nil {
			return err
		}
	}
	return j.filter(ctx, client)
}

// fits refuses a single image of another platform.
func (j *joining) fits() error {
	if len(j.platforms) == 0 || j.wants(j.desc.Platform) {
		return nil
	}
	return fmt.Errorf("input platform %s does not match any of the provided platforms", plainPlatform(*j.desc.Platform))
}

func (j *joining) wants(p *ocispecs.Platform) bool {
	if p == nil || len(j.platforms) == 0 {
		return true
	}
	return slices.ContainsFunc(j.platforms, func(want v1.Platform) bool { return platform.Matches(want, v1Platform(*p)) })
}

// combine lists the manifests of all sources, each once.
func (j *joining) combine(sources []*imageSource) error {
	var list []ocispecs.Descriptor
	at := map[digest.Digest]int{}
	j.from = map[digest.Digest]*imageSource{}
	for _, s := range sources {
		members := []ocispecs.Descriptor{s.desc}
		if isIndexType(s.desc.MediaType) {
			var index ocispecs.Index
			if err := json.Unmarshal(s.raw, &index); err != nil {
				return fmt.Errorf("index %s: %w", s.desc.Digest, err)
			}
			members = index.Manifests
		}
		for _, d := range members {
			j.from[d.Digest] = s
			if i, again := at[d.Digest]; again {
				list[i] = merged(list[i], d)
				continue
			}
			at[d.Digest] = len(list)
			list = append(list, d)
		}
	}
	index := ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: kindOf(list), Manifests: list, Annotations: map[string]string{},
	}
	if err := j.annotate(&index); err != nil {
		return err
	}
	return j.encode(index)
}

// merged is what two sources say of one manifest.
func merged(old, d ocispecs.Descriptor) ocispecs.Descriptor {
	old.MediaType = firstOf(old.MediaType, d.MediaType)
	if d.Platform != nil {
		old.Platform = d.Platform
	}
	annotations := map[string]string{}
	maps.Copy(annotations, old.Annotations)
	maps.Copy(annotations, d.Annotations)
	old.Annotations = annotations
	return old
}

// kindOf is docker's list if all manifests are docker's, else OCI's index.
func kindOf(list []ocispecs.Descriptor) string {
	if slices.ContainsFunc(list, func(d ocispecs.Descriptor) bool { return !strings.HasPrefix(d.MediaType, "application/vnd.docker.") }) {
		return ocispecs.MediaTypeImageIndex
	}
	return dockerList
}

func (j *joining) encode(index ocispecs.Index) error {
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	j.raw = raw
	j.desc = ocispecs.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Annotations: j.desc.Annotations}
	return nil
}

// filter leaves the manifests for the wanted platforms, those without any, and what
// attests to one that is left, be it in the index or only beside it in the registry.
func (j *joining) filter(ctx context.Context, client *registry.Client) error {
	var index ocispecs.Index
	if err := json.Unmarshal(j.raw, &index); err != nil {
		return fmt.Errorf("index %s: %w", j.desc.Digest, err)
	}
	about := map[string]ocispecs.Descriptor{}
	for _, d := range index.Manifests {
		about[d.Digest.String()] = d
	}
	var kept, images []ocispecs.Descriptor
	attested := map[string]bool{}
	for _, d := range index.Manifests {
		subject, attests := about[d.Annotations[platform.AttestationSubject]]
		attests = attests && d.Annotations[attestationType] == attestationManifest && j.wants(subject.Platform)
		switch {
		case attests:
			attested[subject.Digest.String()] = true
			kept = append(kept, d)
		case j.wants(d.Platform):
			kept, images = append(kept, d), append(images, d)
		}
	}
	if len(kept) == 0 {
		return errors.New("none of the manifests match the provided platforms")
	}
	for _, d := range kept {
		if j.from[d.Digest] == nil {
			j.from[d.Digest] = j.only
		}
	}
	beside, err := j.beside(ctx, client, slices.DeleteFunc(images, func(d ocispecs.Descriptor) bool { return attested[d.Digest.String()] }))
	if err != nil || len(kept) == len(index.Manifests) && len(beside) == 0 {
		return err
	}
	index.Manifests = slices.Concat(kept, beside)
	return j.encode(index)
}

// imagetoolsAnnotation is what --annotation takes.
type imagetoolsAnnotation struct {
	kind       string // "index" or "manifest-descriptor"
	on         string // a platform; "": all
	key, value string
}

var annotatedType = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)

func imagetoolsAnnotations(list []string) ([]imagetoolsAnnotation, error) {
	var all []imagetoolsAnnotation
	for _, s := range list {
		head, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid annotation %q, expected key=value", s)
		}
		kinds, key, typed := strings.Cut(head, ":")
		if !typed {
			return nil, withHint(fmt.Errorf("invalid annotation %q: it is not said of what", s), "--annotation index:%s", s)
		}
		for kind := range strings.SplitSeq(kinds, ",") {
			groups := annotatedType.FindStringSubmatch(kind)
			if groups == nil {
				return nil, fmt.Errorf("invalid annotation type %q, expected type and optional platform in square brackets", kind)
			}
			a := imagetoolsAnnotation{kind: groups[1], key: key, value: value}
			if groups[2] != "" {
				p, err := platform.Parse(groups[2])
				if err != nil {
					return nil, err
				}
				a.on = platform.Format(p)
			}
			if err := a.check(); err != nil {
				return nil, err
			}
			all = append(all, a)
		}
	}
	return all, nil
}

func (a imagetoolsAnnotation) check() error {
	switch a.kind {
	case "index", "manifest-descriptor":
		return nil
	case "manifest":
		return fmt.Errorf("%q annotations are not supported: the manifests stay as they are", a.kind)
	case "index-descriptor":
		return fmt.Errorf("%q annotations are invalid while creating an image", a.kind)
	}
	return fmt.Errorf("unknown annotation type %q", a.kind)
}

// annotate adds the annotations, which docker's kind of index does not have.
func (j *joining) annotate(index *ocispecs.Index) error {
	if index.MediaType != ocispecs.MediaTypeImageIndex {
		if len(j.annotations) > 0 {
			j.say("note: all images are of docker's kind, and so is the index: it can't be annotated")
		}
		return nil
	}
	for _, a := range j.annotations {
		if a.kind == "index" {
			index.Annotations[a.key] = a.value
			continue
		}
		for i := range index.Manifests {
			d := &index.Manifests[i]
			if a.on != "" && (d.Platform == nil || a.on != platform.Format(v1Platform(*d.Platform))) {
				continue
			}
			d.Annotations = maps.Clone(d.Annotations)
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			d.Annotations[a.key] = a.value
		}
	}
	return nil
}

func v1Platform(p ocispecs.Platform) v1.Platform {
	return v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

func normalized(p ocispecs.Platform) ocispecs.Platform {
	n := platform.Normalize(v1Platform(p))
	return *ociPlatform(&n)
}

// atHand is an index alone.
type atHand struct {
	desc v1.Descriptor
	raw  []byte
}

// Descriptor implements [registry.Source].
func (a *atHand) Descriptor() v1.Descriptor { return a.desc }

// Open implements [registry.Source].
func (a *atHand) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if d.Digest != a.desc.Digest || offset < 0 || offset > int64(len(a.raw)) {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(a.raw[offset:])), nil
}
