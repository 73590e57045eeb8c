//go:build linux

package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/build/farm"
)

// deliver puts together what nodes have made, and brings it where it is to be.
func (f *farmed) deliver(ctx context.Context, all []made) (*Result, error) {
	res := &Result{Names: slices.Clone(f.request.Names), Metadata: map[string]string{}}
	for _, m := range all {
		maps.Copy(res.Metadata, m.response)
	}
	if d := all[0].digest; d != "" && !f.out.together() {
		h, err := v1.NewHash(d.String())
		if res.Digest = h; err != nil {
			return nil, fmt.Errorf("result: %w", err)
		}
	} else if d != "" {
		root, err := f.join(ctx, all)
		if err != nil {
			return nil, err
		}
		if err := f.publish(ctx, root); err != nil {
			return nil, err
		}
		if err := res.describe(root, f.request.Names); err != nil {
			return nil, err
		}
	}
	return res, f.writeTars(all)
}

// describe says of the result what BuildKit's exporters say.
func (res *Result) describe(root ocispecs.Descriptor, names []reference.Named) (err error) {
	text, err := json.Marshal(root)
	if err != nil {
		return err
	}
	res.Metadata[exptypes.ExporterImageDigestKey] = root.Digest.String()
	res.Metadata[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(text)
	if len(names) > 0 {
		res.Metadata[exptypes.ExporterImageNameKey] = joinNames(Request{Names: names})
	}
	res.Digest, err = v1.NewHash(root.Digest.String())
	return err
}

// join returns what the whole result is: the only part, or an index over all, which has
// landed then.
func (f *farmed) join(ctx context.Context, all []made) (ocispecs.Descriptor, error) {
	parts := make([]farm.Made, len(all))
	for i, m := range all {
		d, raw, err := f.manifest(ctx, m)
		if err != nil {
			return d, err
		}
		parts[i] = farm.Made{Descriptor: d, Raw: raw, Platforms: m.platforms}
	}
	if len(parts) == 1 {
		return parts[0].Descriptor, f.out.landing.add(ctx, parts[0].Descriptor, parts[0].Raw)
	}
	root, raw, err := farm.Index(f.wanted, parts, annotationsOf(f.request))
	if err != nil {
		return root, err
	}
	return root, f.out.landing.add(ctx, root, raw)
}

// manifest reads what a node has made, from where it is.
func (f *farmed) manifest(ctx context.Context, m made) (d ocispecs.Descriptor, raw []byte, err error) {
	if !m.here {
		repo := reference.TrimNamed(f.request.Names[0])
		ref, err := reference.WithDigest(repo, m.digest)
		if err != nil {
			return d, nil, err
		}
		found, raw, err := f.farm.Registries.Manifest(ctx, ref)
		if err != nil {
			return d, nil, fmt.Errorf("what a node has pushed: %w", err)
		}
		return ocispecs.Descriptor{MediaType: string(found.MediaType), Digest: m.digest, Size: found.Size}, raw, nil
	}
	if raw, err = f.out.landing.read(ctx, m.digest); err != nil {
		return d, nil, err
	}
	var typed struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &typed); err != nil || typed.MediaType == "" {
		return d, nil, fmt.Errorf("result: manifest %s does not say what it is", m.digest)
	}
	return ocispecs.Descriptor{MediaType: typed.MediaType, Digest: m.digest, Size: int64(len(raw))}, raw, nil
}

// annotationsOf are those that no node has made.
func annotationsOf(r Request) farm.Annotations {
	a := farm.Annotations{Index: map[string]string{}, Descriptor: map[string]map[string]string{}}
	for _, one := range r.Annotations {
		switch one.key.Type {
		case exptypes.AnnotationIndex:
			a.Index[one.key.Key] = one.value
		case exptypes.AnnotationManifestDescriptor:
			at := one.platform()
			if a.Descriptor[at] == nil {
				a.Descriptor[at] = map[string]string{}
			}
			a.Descriptor[at][one.key.Key] = one.value
		}
	}
	return a
}

// publish brings an image into registries, the image store and archives.
func (f *farmed) publish(ctx context.Context, root ocispecs.Descriptor) error {
	src, err := f.out.landing.source(root)
	if err != nil {
		return err
	}
	called, err := calledBy(f.request.Names, root.Digest)
	if err != nil {
		return err
	}
	if f.out.push {
		for _, name := range called {
			if err := f.farm.Registries.Push(ctx, name, src); err != nil {
				return err
			}
		}
	}
	if f.out.keep {
		names := make([]string, len(called))
		for i, n := range called {
			names[i] = n.String()
		}
		if _, err := f.store.Adopt(ctx, src, names); err != nil {
			return err
		}
	}
	for _, out := range f.out.rest {
		if f.out.joined(out) {
			if err := f.out.writeLayout(ctx, out, root); err != nil {
				return fmt.Errorf("output %q: %w", out.Dest, err)
			}
		}
	}
	return nil
}

// calledBy are names, with the result's digest where they have no tag.
func calledBy(names []reference.Named, d digest.Digest) ([]reference.Named, error) {
	list := make([]reference.Named, len(names))
	for i, name := range names {
		list[i] = name
		if reference.IsNameOnly(name) {
			pinned, err := reference.WithDigest(name, d)
			if err != nil {
				return nil, err
			}
			list[i] = pinned
		}
	}
	return list, nil
}
