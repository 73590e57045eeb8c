package main

import (
	"context"
	"maps"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// attestationArtifact is the artifact type of attestations that refer to their image.
const attestationArtifact = "application/vnd.docker.attestation.manifest.v1+json"

// attestingArtifacts tells which artifacts buildx copies with the manifests of an index to
// another repository: attestations, and signatures by cosign and sigstore.
type attestingArtifacts struct {
	src  *listSource
	root v1.Hash
	to   reference.Named
}

// Referrers implements [registry.Surroundings].
func (a *attestingArtifacts) Referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	from := a.src.Origins(v1.Descriptor{Digest: subject})
	if subject == a.root && !a.isCopy() || len(from) == 0 || from[0].Name() == a.to.Name() {
		return nil, nil
	}
	list, err := a.src.client.Referrers(ctx, from[0], subject)
	list = slices.DeleteFunc(list, func(d v1.Descriptor) bool {
		return !slices.Contains([]string{
			attestationArtifact, "application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json",
		}, d.ArtifactType)
	})
	for _, d := range list {
		a.src.comesFrom(d, from[0])
	}
	return list, err
}

// isCopy reports whether the root is a manifest, which is copied as it is, and no index.
func (a *attestingArtifacts) isCopy() bool { return !a.src.Descriptor().MediaType.IsIndex() }

// beside are the attestations of images that refer to them in the registry, one of each.
func (j *joining) beside(ctx context.Context, client *registry.Client, images []ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
	found := make([]*ocispecs.Descriptor, len(images))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, d := range images {
		g.Go(func() error {
			subject, err := v1.NewHash(d.Digest.String())
			if err != nil {
				return err
			}
			list, err := client.Referrers(ctx, j.from[d.Digest].ref, subject)
			at := slices.IndexFunc(list, func(r v1.Descriptor) bool { return r.ArtifactType == attestationArtifact })
			if err != nil || at < 0 {
				return err
			}
			r := ociDescriptor(list[at])
			r.Platform, r.ArtifactType = &ocispecs.Platform{OS: "unknown", Architecture: "unknown"}, ""
			r.Annotations = maps.Clone(r.Annotations)
			if r.Annotations == nil {
				r.Annotations = map[string]string{}
			}
			r.Annotations[attestationType], r.Annotations[platform.AttestationSubject] = attestationManifest, d.Digest.String()
			found[i] = &r
			return nil
		})
	}
	err := g.Wait()
	var list []ocispecs.Descriptor
	for i, d := range found {
		if d != nil {
			j.from[d.Digest] = j.from[images[i].Digest]
			list = append(list, *d)
		}
	}
	return list, err
}
