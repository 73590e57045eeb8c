package layout

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"
)

// The bytes of a layer that is compressed here depend on these, never on the
// number of cores: they are those of the layers that builds make, and a golden
// digest in the tests holds them.
const (
	gzipBlock  = 1 << 20 // bytes of input each core compresses at once
	gzipBlocks = 8       // blocks in flight
)

// ImportOptions say what image a root file system becomes.
type ImportOptions struct {
	// Names are full normalised names, or what normalises to one, without a
	// digest. Without any the image gets an untagged entry.
	Names []string
	// Config returns the image's config, as JSON; diffID is that of its one
	// layer. It is called once the whole tar was read and found good.
	Config func(diffID v1.Hash) ([]byte, error)
}

// Import makes an image of one layer from the tar of a root file system, which
// it reads to its end; r need not seek. gzip, zstd, xz or bzip2 may be around
// the tar. A layer that comes in gzip or zstd is stored as it is, any other is
// compressed with gzip, always to the same bytes.
//
// Nothing is extracted. The tar must be whole: names that lead out of the root,
// damaged headers, and anything but padding after its end are refused, and so is
// compression that doesn't check out. If anything is wrong nothing is named, and
// nothing stays. Errors are [*InvalidError], those of Config, and those of
// reading r.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	names, err := entryNames(o.Names, v1.Hash{})
	if err != nil {
		return nil, err
	}
	img, err := s.importShared(ctx, r, o, names)
	var late *placingError
	if errors.As(err, &late) {
		_, _ = s.Collect(ctx) // what was placed before the failure; if it can't be done now, then later
		err = late.err
	}
	return img, err
}

func (s *Store) importShared(ctx context.Context, r io.Reader, o ImportOptions, names []string) (*Image, error) {
	release, err := s.share(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	root, err := s.readRoot(ctx, r)
	if err != nil {
		return nil, err
	}
	config, err := o.Config(root.diffID)
	if err != nil {
		return nil, errors.Join(err, root.file.discard())
	}
	img, err := s.placeRoot(ctx, root, config, names)
	if err != nil {
		return nil, &placingError{err}
	}
	return img, nil
}

// placeRoot brings layer, config and manifest into the store, and names them.
func (s *Store) placeRoot(ctx context.Context, root *rootLayer, config []byte, names []string) (*Image, error) {
	if s.has(root.desc) {
		if err := root.file.discard(); err != nil {
			return nil, err
		}
	} else if err := s.finish(root.file, root.desc, nil); err != nil {
		return nil, err
	}
	cd := describe(types.OCIConfigJSON, config)
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: cd, Layers: []v1.Descriptor{root.desc},
	})
	if err != nil {
		return nil, err
	}
	md := describe(types.OCIManifestSchema1, manifest)
	if err := errors.Join(s.writeBlob(cd, config), s.writeBlob(md, manifest)); err != nil {
		return nil, err
	}
	if err := s.syncBlobs([]v1.Descriptor{root.desc, cd, md}); err != nil {
		return nil, err
	}
	return s.name(ctx, md, names)
}

// describe is the descriptor of a document made here.
func describe(t types.MediaType, raw []byte) v1.Descriptor {
	h := sha256.New()
	h.Write(raw)
	return v1.Descriptor{MediaType: t, Size: int64(len(raw)), Digest: sum("sha256", h)}
}

// rootLayer is the layer made of a root file system, not yet in its place.
type rootLayer struct {
	desc   v1.Descriptor
	diffID v1.Hash
	file   *ingest
}

// readRoot reads the tar of a root file system to its end.
func (s *Store) readRoot(ctx context.Context, r io.Reader) (_ *rootLayer, err error) {
	source := &countingReader{ctx: ctx, r: r}
	g, err := s.newIngest("sha256")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(source.cause(err), g.discard())
		}
	}()
	in := bufio.NewReaderSize(source, bufferSize)
	head, err := in.Peek(sniffLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	diff := sha256.New()
	t, fits := sniff(head).layerType()
	if fits && t != types.OCIUncompressedLayer {
		err = keepRoot(in, g, diff)
	} else {
		t, err = types.OCILayer, compressRoot(in, g, diff)
	}
	if err != nil {
		return nil, err
	}
	d := v1.Descriptor{MediaType: t, Size: g.n, Digest: sum("sha256", g.hash)}
	return &rootLayer{desc: d, diffID: sum("sha256", diff), file: g}, nil
}

// keepRoot writes a compressed layer to g as it is.
func keepRoot(in io.Reader, g io.Writer, diff hash.Hash) error {
	stream, free, err := unpack(io.TeeReader(in, g))
	if err != nil {
		return err
	}
	defer free()
	return checkRoot(io.TeeReader(stream, diff))
}

// compressRoot writes a layer to g that no image may have as it is, or that
// nobody has compressed.
func compressRoot(in io.Reader, g io.Writer, diff hash.Hash) error {
	stream, free, err := unpack(in)
	if err != nil {
		return err
	}
	defer free()
	z, err := newGzip(g)
	if err != nil {
		return err
	}
	return errors.Join(checkRoot(io.TeeReader(stream, io.MultiWriter(diff, z))), z.Close())
}

// newGzip compresses on all cores, to bytes that depend on the input alone.
func newGzip(w io.Writer) (io.WriteCloser, error) {
	z, err := pgzip.NewWriterLevel(w, gzip.DefaultCompression)
	if err != nil {
		return nil, err
	}
	return z, z.SetConcurrency(gzipBlock, gzipBlocks)
}

// checkRoot reads a tar to the end of the stream. One without any file is good:
// it makes an empty image.
func checkRoot(stream io.Reader) error {
	end := &endReader{r: stream}
	tr := tar.NewReader(end)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if n == 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			err = tar.ErrHeader // too short for one
		}
		if err != nil {
			return archiveError(err)
		}
		if leadsOut(h.Name) || h.Typeflag == tar.TypeLink && leadsOut(h.Linkname) {
			return invalid("archive", "%q leads out of the root file system", h.Name)
		}
	}
	if end.zeros < tarBlockSize {
		return archiveError(io.ErrUnexpectedEOF)
	}
	return drain(stream)
}

// leadsOut: absolute names are meant within the root, as tar -P writes them.
func leadsOut(name string) bool {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	return clean == ".." || strings.HasPrefix(clean, "../")
}
