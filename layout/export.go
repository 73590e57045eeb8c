package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Exported is an image on its way into an archive from elsewhere than a store.
type Exported struct {
	Source Source
	// Name is the full normalised name, or what normalises to one; "" for none.
	Name string
	// RefName is written as it is in place of Name, for who looks the image up by
	// the very same word.
	RefName string
}

// Export writes the archive that [Store.Save] would write of the same images, read
// from their sources blob by blob and never kept on a disk. Each image goes in
// whole: o.Platforms must be nil. Every byte is verified on its way, so that the
// archive is good if there is no error, and must be thrown away if there is one.
//
// Errors are those of Save, and the sources' own.
func Export(ctx context.Context, w io.Writer, images []Exported, o SaveOptions) error {
	x := &export{from: map[v1.Hash]Source{}, docs: map[v1.Hash][]byte{}}
	all, err := x.gather(ctx, images)
	if err != nil {
		return err
	}
	t, err := newTarWriter(w, o.Compression)
	if err != nil {
		return err
	}
	if err := savedIndexes(ctx, t, all); err != nil {
		return err
	}
	t.dir(blobsDir)
	blobs := listBlobs(all)
	for n, d := range blobs {
		if n == 0 || blobs[n-1].Digest.Algorithm != d.Digest.Algorithm {
			t.dir(blobsDir + "/" + d.Digest.Algorithm)
		}
		if t.err == nil {
			t.err = x.write(ctx, t, d, o.Progress)
		}
	}
	return t.close()
}

// export is one Export.
type export struct {
	from map[v1.Hash]Source // of each blob one that has it
	docs map[v1.Hash][]byte // manifests
}

// gather reads the manifests of the images.
func (x *export) gather(ctx context.Context, images []Exported) ([]saved, error) {
	all := make([]saved, 0, len(images))
	for _, e := range images {
		root := e.Source.Descriptor()
		if err := checkDescriptor(root, "the image's descriptor"); err != nil {
			return nil, err
		}
		img := &Image{desc: root, refName: e.RefName}
		if e.Name != "" && e.RefName == "" {
			names, err := entryNames([]string{e.Name}, root.Digest)
			if err != nil {
				return nil, err
			}
			img.name = names[0]
		}
		t, err := walk(ctx, root, walker{read: func(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
			return x.read(ctx, e.Source, d, limit)
		}})
		if err != nil {
			return nil, err
		}
		for _, d := range t.blobs {
			x.from[d.Digest] = e.Source
		}
		all = append(all, saved{img: img, tree: t})
	}
	return all, nil
}

func (x *export) read(ctx context.Context, src Source, d v1.Descriptor, limit int64) ([]byte, error) {
	if raw, ok := x.docs[d.Digest]; ok {
		return raw, nil
	}
	r, err := src.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := readVerified(r, d, limit)
	if err == nil {
		x.docs[d.Digest] = raw
	}
	return raw, err
}

// write brings one blob into the archive.
func (x *export) write(ctx context.Context, t *tarWriter, d v1.Descriptor, p Progress) error {
	if raw, ok := x.docs[d.Digest]; ok {
		t.small(archivePath(d.Digest), raw)
		return t.err
	}
	r, err := x.open(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return err
	}
	t.header(archivePath(d.Digest), tar.TypeReg, d.Size)
	report(p, d, 0)
	if err := t.stream(ctx, r, h, d, p); err != nil {
		return err
	}
	if got := sum(d.Digest.Algorithm, h); got != d.Digest {
		return &DigestError{Digest: d.Digest, Size: d.Size, Got: got, Bytes: d.Size}
	}
	t.pad(d.Size)
	return t.err
}

func (x *export) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if len(d.Data) > 0 && verify(d, d.Data) == nil {
		return io.NopCloser(bytes.NewReader(d.Data)), nil
	}
	return x.from[d.Digest].Open(ctx, d, 0)
}

// stream writes d.Size bytes of r, and hashes them.
func (t *tarWriter) stream(ctx context.Context, r io.Reader, h hash.Hash, d v1.Descriptor, p Progress) error {
	if t.buf == nil {
		t.buf = make([]byte, bufferSize)
	}
	for left := d.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(t.buf[:min(left, bufferSize)])
		h.Write(t.buf[:n])
		t.write(t.buf[:n])
		t.writeback()
		left -= int64(n)
		report(p, d, d.Size-left)
		if err == io.EOF && left > 0 {
			return &DigestError{Digest: d.Digest, Size: d.Size, Bytes: d.Size - left}
		}
		if err != nil && err != io.EOF {
			return err
		}
		if t.err != nil {
			return t.err
		}
	}
	return nil
}
