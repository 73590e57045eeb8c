//go:build linux

package build

import (
	"archive/tar"
	"context"
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
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/platform"
)

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
