package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// What in-toto's attestations are about, and how they are wrapped.
const (
	predicateType   = "in-toto.io/predicate-type"
	inTotoStatement = "application/vnd.in-toto+json"
	predicateSPDX   = "https://spdx.dev/Document"
	predicateSLSA   = "https://slsa.dev/provenance/"
)

// maxInIndex bounds how many manifests, and indexes within indexes, are read for a template.
const (
	maxInIndex = 1000
	maxNesting = 6
)

// imagetoolsLoad is what templates of imagetools inspect may ask for: buildx's loader
// (util/imagetools/loader.go, v0.38).
type imagetoolsLoad struct {
	ctx   context.Context //nolint:containedctx // templates call methods that have no parameters
	image *registry.Image

	images  map[string]string              // platform to digest
	about   map[string][]ocispecs.Manifest // digest of an image to what attests to it
	configs map[string]*ocispecs.Image     // by platform
	failed  error                          // of what a template asked for
	count   atomic.Int64                   // manifests that there are to read
}

// loadedManifest is a manifest that was read.
type loadedManifest struct {
	desc     v1.Descriptor
	manifest ocispecs.Manifest
	about    string            // the digest of the image that it attests to
	config   *ocispecs.Image   // of an image
	platform ocispecs.Platform // of an image
}

// loadImagetools reads the manifests below img, and the configs. Of two images for one
// platform the first counts.
func loadImagetools(ctx context.Context, img *registry.Image) (*imagetoolsLoad, error) {
	l := &imagetoolsLoad{
		ctx: ctx, image: img, images: map[string]string{}, about: map[string][]ocispecs.Manifest{}, configs: map[string]*ocispecs.Image{},
	}
	all, err := l.fetch(ctx, img.Descriptor(), 0)
	for _, m := range all {
		on := plainPlatform(normalized(m.platform))
		switch {
		case m.about != "":
			l.about[m.about] = append(l.about[m.about], m.manifest)
		case l.images[on] == "":
			l.images[on] = m.desc.Digest.String()
			if m.config != nil {
				l.configs[on] = m.config
			}
		}
	}
	return l, err
}

// fetch reads what d is and has below it, in order.
func (l *imagetoolsLoad) fetch(ctx context.Context, d v1.Descriptor, depth int) ([]loadedManifest, error) {
	switch {
	case depth > maxNesting:
		return nil, errors.New("too many indexes within each other")
	case isIndexType(string(d.MediaType)):
	case isImageType(string(d.MediaType)):
		m, err := l.manifest(ctx, d)
		return []loadedManifest{m}, err
	default:
		return nil, nil
	}
	var index v1.IndexManifest
	if err := readJSON(ctx, l.image, d, maxManifest, &index); err != nil {
		return nil, err
	}
	if l.count.Add(int64(len(index.Manifests))) > maxInIndex {
		return nil, fmt.Errorf("more than %d manifests in the index", maxInIndex)
	}
	below := make([][]loadedManifest, len(index.Manifests))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, child := range index.Manifests {
		g.Go(func() (err error) {
			below[i], err = l.fetch(ctx, child, depth+1)
			return err
		})
	}
	err := g.Wait()
	return slices.Concat(below...), err
}

func (l *imagetoolsLoad) manifest(ctx context.Context, d v1.Descriptor) (loadedManifest, error) {
	m := loadedManifest{desc: d}
	if err := readJSON(ctx, l.image, d, maxManifest, &m.manifest); err != nil {
		return m, err
	}
	if m.about = firstOf(d.Annotations["com.docker.reference.digest"], d.Annotations[platform.AttestationSubject]); m.about != "" {
		return m, nil
	}
	config, err := v1Descriptor(m.manifest.Config)
	if err == nil {
		err = readJSON(ctx, l.image, config, maxConfig, &m.config)
	}
	if d.Platform != nil {
		m.platform = *ociPlatform(d.Platform)
	} else if m.config != nil {
		m.platform = m.config.Platform
	}
	return m, err
}

// imagetoolsInput is what a template works on for one image.
type imagetoolsInput struct {
	Name     string          `json:"name,omitempty"`
	Manifest any             `json:"manifest,omitempty"`
	Image    *ocispecs.Image `json:"image,omitempty"`

	load *imagetoolsLoad
}

// imagetoolsInputs is what it works on for several platforms.
type imagetoolsInputs struct {
	Name     string                     `json:"name,omitempty"`
	Manifest any                        `json:"manifest,omitempty"`
	Image    map[string]*ocispecs.Image `json:"image,omitempty"`

	load *imagetoolsLoad
}

func (l *imagetoolsLoad) inputs(name string, manifest any) any {
	if len(l.images) > 1 {
		return imagetoolsInputs{Name: name, Manifest: manifest, Image: l.configs, load: l}
	}
	one := imagetoolsInput{Name: name, Manifest: manifest, load: l}
	for _, config := range l.configs {
		one.Image = config
	}
	return one
}

type sbomView struct {
	SPDX            any   `json:",omitempty"`
	AdditionalSPDXs []any `json:",omitempty"`
}

type provenanceView struct {
	SLSA any `json:",omitempty"`
}

// SBOM is the image's; empty if it has none.
func (i imagetoolsInput) SBOM() (sbomView, error) {
	all, err := i.load.sboms()
	for _, one := range all {
		return one, err
	}
	return sbomView{}, err
}

// SBOM is that of each platform that has one.
func (i imagetoolsInputs) SBOM() (map[string]sbomView, error) { return i.load.sboms() }

// Provenance is the image's; empty if it has none.
func (i imagetoolsInput) Provenance() (provenanceView, error) {
	all, err := i.load.provenances()
	for _, one := range all {
		return one, err
	}
	return provenanceView{}, err
}

// Provenance is that of each platform that has one.
func (i imagetoolsInputs) Provenance() (map[string]provenanceView, error) {
	return i.load.provenances()
}

func (l *imagetoolsLoad) sboms() (map[string]sbomView, error) {
	found, err := l.predicates(func(kind string) bool { return kind == predicateSPDX })
	all := map[string]sbomView{}
	for on, list := range found {
		all[on] = sbomView{SPDX: list[0], AdditionalSPDXs: list[1:]}
	}
	return all, err
}

func (l *imagetoolsLoad) provenances() (map[string]provenanceView, error) {
	found, err := l.predicates(func(kind string) bool { return strings.HasPrefix(kind, predicateSLSA) })
	all := map[string]provenanceView{}
	for on, list := range found {
		all[on] = provenanceView{SLSA: list[0]}
	}
	return all, err
}

// predicates are the statements of a kind about each platform's image, in the order of
// the attestations; platforms without any are left out.
func (l *imagetoolsLoad) predicates(is func(kind string) bool) (map[string][]any, error) {
	found := map[string][]any{}
	for on, image := range l.images {
		for _, attestation := range l.about[image] {
			for _, layer := range attestation.Layers {
				if !isStatement(layer.MediaType) || !is(layer.Annotations[predicateType]) {
					continue
				}
				p, err := l.predicate(layer)
				if err != nil {
					l.failed = err
					return nil, err
				}
				found[on] = append(found[on], p)
			}
		}
	}
	return found, nil
}

func (l *imagetoolsLoad) predicate(layer ocispecs.Descriptor) (any, error) {
	d, err := v1Descriptor(layer)
	if err != nil {
		return nil, err
	}
	raw, err := readBlob(l.ctx, l.image, d, maxAttestation)
	if err == nil && layer.MediaType != inTotoStatement {
		raw, err = unwrapped(raw)
	}
	var statement struct {
		Predicate any `json:"predicate"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &statement)
	}
	if err != nil {
		return nil, fmt.Errorf("attestation %s: %w", d.Digest, err)
	}
	return statement.Predicate, nil
}

// unwrapped is the payload of a signed envelope
// (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md). Its signature is
// not looked at.
func unwrapped(raw []byte) ([]byte, error) {
	var envelope struct {
		Payload string `json:"payload"`
	}
	if err := json.Unmarshal(raw, &envelope); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(envelope.Payload)
}

func isStatement(mediaType string) bool {
	return mediaType == inTotoStatement || regexp.MustCompile(`application/vnd\.in-toto\..*\+dsse`).MatchString(mediaType)
}
