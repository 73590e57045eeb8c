//go:build linux

package build

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/platform"
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

// writeLayout writes an OCI layout of root, as a folder or as a tar.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md
func (o *farmOutputs) writeLayout(ctx context.Context, out Output, root ocispecs.Descriptor) error {
	index, err := json.Marshal(layoutIndex(root, o.request))
	if err != nil {
		return err
	}
	files := []layoutFile{{name: ocispecs.ImageLayoutFile, text: []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {name: ocispecs.ImageIndexFile, text: index}}
	blobs, err := o.landing.below(ctx, root)
	if err != nil {
		return err
	}
	for _, d := range blobs {
		files = append(files, layoutFile{name: strings.Join([]string{ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded()}, "/"), path: o.landing.path(d)})
	}
	if out.isFolder() {
		return writeFolder(out.Dest, files)
	}
	return o.writeFile(out, func(w io.Writer) error { return writeTar(w, files) })
}

// layoutFile is a file of a layout: text, or what is at path.
type layoutFile struct {
	name, path string
	text       []byte
}

func (f layoutFile) open() (io.ReadCloser, int64, error) {
	if f.path == "" {
		return io.NopCloser(strings.NewReader(string(f.text))), int64(len(f.text)), nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

func layoutIndex(root ocispecs.Descriptor, r Request) ocispecs.Index {
	index := ocispecs.Index{MediaType: ocispecs.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, a := range r.Annotations {
		if a.key.Type == exptypes.AnnotationIndexDescriptor {
			if root.Annotations == nil {
				root.Annotations = map[string]string{}
			}
			root.Annotations[a.key.Key] = a.value
		}
	}
	for _, name := range r.Names {
		d := root
		d.Annotations = maps.Clone(root.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations["io.containerd.image.name"] = name.String()
		if tagged, ok := name.(reference.Tagged); ok {
			d.Annotations[ocispecs.AnnotationRefName] = tagged.Tag()
		}
		index.Manifests = append(index.Manifests, d)
	}
	if len(r.Names) == 0 {
		index.Manifests = append(index.Manifests, root)
	}
	return index
}

// below are the blobs that root reaches, sorted.
func (l *landing) below(ctx context.Context, root ocispecs.Descriptor) ([]digest.Digest, error) {
	seen := map[digest.Digest]bool{}
	todo := []ocispecs.Descriptor{root}
	for len(todo) > 0 {
		d := todo[0]
		todo = todo[1:]
		if err := d.Digest.Validate(); err != nil {
			return nil, err
		}
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		if !strings.Contains(d.MediaType, "manifest") && !strings.Contains(d.MediaType, "index") {
			continue
		}
		raw, err := l.read(ctx, d.Digest)
		if err != nil {
			return nil, err
		}
		var m struct {
			Config    *ocispecs.Descriptor  `json:"config"`
			Layers    []ocispecs.Descriptor `json:"layers"`
			Manifests []ocispecs.Descriptor `json:"manifests"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		todo = append(append(todo, m.Layers...), m.Manifests...)
		if m.Config != nil {
			todo = append(todo, *m.Config)
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

func writeFolder(dir string, files []layoutFile) error {
	for _, f := range files {
		to := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := f.copyTo(to); err != nil {
			return err
		}
	}
	return nil
}

func (f layoutFile) copyTo(to string) (err error) {
	from, _, err := f.open()
	if err != nil {
		return err
	}
	defer from.Close()
	d := &destination{path: to}
	defer d.discard()
	w, err := d.open()
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, from); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return d.keep()
}

func writeTar(w io.Writer, files []layoutFile) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		from, size, err := f.open()
		if err != nil {
			return err
		}
		err = t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o444, Size: size, Typeflag: tar.TypeReg})
		if err == nil {
			_, err = io.Copy(t, from)
		}
		if err := errors.Join(err, from.Close()); err != nil {
			return err
		}
	}
	return t.Close()
}

// writeFile has write fill the output's file, which is there when it is whole.
func (o *farmOutputs) writeFile(out Output, write func(io.Writer) error) error {
	if out.Dest == "-" {
		return write(o.request.Stdout)
	}
	d := &destination{path: out.Dest}
	o.written = append(o.written, d)
	w, err := d.open()
	if err != nil {
		return err
	}
	if err := errors.Join(write(w), w.Close()); err != nil {
		return err
	}
	return d.keep()
}

// writeTars makes one tar of those that several nodes have made.
func (f *farmed) writeTars(all []made) error {
	for _, out := range f.out.rest {
		if out.Type != OutputTar || !f.out.several {
			continue
		}
		err := f.out.writeFile(out, func(w io.Writer) error {
			t := tar.NewWriter(w)
			for _, m := range all {
				if err := appendTar(t, m); err != nil {
					return err
				}
			}
			return t.Close()
		})
		if err != nil {
			return fmt.Errorf("output %q: %w", out.Dest, err)
		}
	}
	return nil
}

// appendTar copies all that is in a node's tar: into a folder for its platform, where
// BuildKit made none because it knew of no other.
func appendTar(to *tar.Writer, m made) error {
	f, err := os.Open(m.tar)
	if err != nil {
		return err
	}
	defer f.Close()
	folder := ""
	if len(m.platforms) == 1 {
		folder = strings.ReplaceAll(platform.Format(m.platforms[0]), "/", "_") + "/"
	}
	from := tar.NewReader(f)
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		h.Name = folder + h.Name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = folder + h.Linkname
		}
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil { //nolint:gosec // into a file of the same size
			return err
		}
	}
}
