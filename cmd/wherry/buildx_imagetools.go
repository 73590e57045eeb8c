package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

func imagetoolsCommand(e *env) *cli.Command {
	c := group("imagetools", "Commands to work on images in registry", imagetoolsCreateCommand(e), imagetoolsInspectCommand(e))
	c.Description = `They work on registries alone, not on the store. "index" does more, and takes
images of the store too.`
	return c
}

// imagetoolsFlags are those that all of the commands have, and which mean nothing
// here: no builder is asked.
func imagetoolsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "builder", Usage: "Override the configured builder instance (has no effect)"},
		&cli.BoolFlag{Name: "debug", Aliases: []string{"D"}, Usage: "Enable debug logging (has no effect)"},
	}
}

func (e *env) sayNoEffect(c *cli.Context, names ...string) {
	for _, name := range names {
		if c.IsSet(name) {
			e.say("note: --%s has no effect", name)
		}
	}
}

// imageSource is an image or an index that imagetools reads: a name, a digest, or a
// descriptor, of the repository that all of a command is about.
type imageSource struct {
	typed string
	ref   reference.Named // nil until it is known
	desc  ocispecs.Descriptor
	raw   []byte
	image *registry.Image
}

// parseImageSource reads a source as buildx does.
func parseImageSource(typed string) (*imageSource, error) {
	s := &imageSource{typed: typed}
	if d, err := digest.Parse(typed); err == nil {
		s.desc.Digest = d
		return s, nil
	}
	if !strings.HasPrefix(typed, "{") {
		ref, err := registryOnly(typed)
		s.ref = ref
		return s, err
	}
	var in struct {
		SchemaVersion int `json:"schemaVersion"`
		ocispecs.Descriptor
	}
	if err := json.Unmarshal([]byte(typed), &in); err != nil {
		return nil, fmt.Errorf("source descriptor: %w", err)
	}
	if in.SchemaVersion != 0 {
		return nil, fmt.Errorf("expected an OCI content descriptor, got a manifest or index (schemaVersion %d)", in.SchemaVersion)
	}
	if _, err := digest.Parse(in.Digest.String()); err != nil {
		return nil, fmt.Errorf("invalid descriptor digest: %w", err)
	}
	s.desc = in.Descriptor
	return s, nil
}

// registryOnly reads a name in a registry; buildx knows layouts too.
func registryOnly(typed string) (reference.Named, error) {
	if strings.HasPrefix(typed, "oci-layout://") {
		return nil, withHint(fmt.Errorf("%q: imagetools works on registries here", typed), "%s --store DIR index create ...", program)
	}
	return registry.ParseReference(typed)
}

// inRepository gives a source that is a digest or a descriptor its repository.
func (s *imageSource) inRepository(repo reference.Named) error {
	ref, err := reference.WithDigest(reference.TrimNamed(repo), s.desc.Digest)
	if err == nil {
		s.ref = ref
	}
	return err
}

// read gets the manifest. What a descriptor says goes before what the registry does.
func (s *imageSource) read(ctx context.Context, client *registry.Client) error {
	img, err := client.Get(ctx, s.ref)
	if err != nil {
		return asNoManifest(err, s.ref)
	}
	s.raw, s.image = img.RawManifest(), img
	d := ociDescriptor(img.Descriptor())
	if s.desc.Size != 0 && s.desc.Size != d.Size {
		return fmt.Errorf("invalid size mismatch for %s, %d != %d", d.Digest, s.desc.Size, d.Size)
	}
	if s.desc.MediaType != "" {
		d.MediaType = s.desc.MediaType
	}
	d.Annotations, d.Platform = s.desc.Annotations, s.desc.Platform
	s.desc = d
	if isIndexType(d.MediaType) {
		return nil
	}
	return s.findPlatform(ctx)
}

// findPlatform takes from the config what is not said of the platform.
func (s *imageSource) findPlatform(ctx context.Context) error {
	var p ocispecs.Platform
	if s.desc.Platform != nil {
		p = *s.desc.Platform
	}
	s.desc.Platform = &p
	if p.OS != "" && p.Architecture != "" {
		return nil
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(s.raw, &manifest); err != nil {
		return err
	}
	var c ocispecs.Platform
	if err := readJSON(ctx, s.image, manifest.Config, maxConfig, &c); err != nil {
		return err
	}
	c = normalized(c)
	if p.Architecture == "" {
		p.Architecture = c.Architecture
		p.Variant = firstOf(p.Variant, c.Variant)
	}
	p.OS = firstOf(p.OS, c.OS)
	return nil
}

// Bounds on what a registry sends, in bytes: an SBOM may be long.
const (
	maxConfig      = 16 << 20
	maxAttestation = 64 << 20
)

// readJSON reads a blob of at most limit bytes into v, verified.
func readJSON(ctx context.Context, img *registry.Image, d v1.Descriptor, limit int64, v any) error {
	raw, err := readBlob(ctx, img, d, limit)
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.Digest, err)
	}
	return nil
}

func isIndexType(mediaType string) bool {
	return mediaType == ocispecs.MediaTypeImageIndex || mediaType == dockerList
}

// The media types of docker's manifests.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

func isImageType(mediaType string) bool {
	return mediaType == ocispecs.MediaTypeImageManifest || mediaType == dockerManifest
}

func ociDescriptor(d v1.Descriptor) ocispecs.Descriptor {
	return ocispecs.Descriptor{
		MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size, URLs: d.URLs,
		Annotations: d.Annotations, Platform: ociPlatform(d.Platform), ArtifactType: d.ArtifactType,
	}
}

// v1Descriptor is d in the words of the registry. Who wrote d may have written anything.
func v1Descriptor(d ocispecs.Descriptor) (v1.Descriptor, error) {
	var out v1.Descriptor
	raw, err := json.Marshal(d)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err == nil && out.Digest.Hex == "" {
		err = errors.New("a descriptor without a digest")
	}
	return out, err
}
