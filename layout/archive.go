package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Bounds on an archive.
const (
	maxFiles     = 200_000
	maxArchived  = 256 << 20 // bytes of all manifests, configs and other JSON in one archive
	maxLinks     = 16        // links that lead to links
	maxName      = 4096      // bytes of a file's name
	maxHoles     = 1 << 30   // bytes of all sparse files in one archive
	perFile      = 256       // bytes of memory that knowing of a file takes, and more
	maxTrailer   = 64 << 20  // zero bytes after the end of the archive
	maxSettling  = 4         // files on their way to the disk while the next is read
	tarBlockSize = 512
)

// archive is what was read of a tar stream: JSON in memory, the rest in files of
// the ingest folder, everything hashed.
type archive struct {
	store    *Store
	progress Progress
	files    map[string]*item // by clean path
	links    map[string]string
	blobs    map[v1.Hash]*item
	walked   int64 // bytes of the manifests of all images
	settling errgroup.Group

	mu    sync.Mutex
	kept  int64    // bytes in memory
	holes int64    // bytes of files that are sparse
	temps []string // files of the ingest folder
}

// item is one regular file of an archive.
type item struct {
	digest  v1.Hash // of the algorithm in its path; else SHA-256
	size    int64
	raw     []byte         // small JSON is here
	config  *v1.ConfigFile // raw, once it was read as one
	temp    string         // other content is in this file; "" if the store has it anyway
	packing compression    // told by the first bytes
}

func (i *item) descriptor() v1.Descriptor { return v1.Descriptor{Digest: i.digest, Size: i.size} }

func archiveError(err error) error {
	if own, ok := errors.AsType[*InvalidError](err); ok {
		return own
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &InvalidError{What: "archive", Reason: "it is truncated"}
	case errors.Is(err, tar.ErrHeader):
		return &InvalidError{What: "archive", Reason: "not a tar archive", Err: err}
	default:
		return &InvalidError{What: "archive", Reason: "it can't be read", Err: err}
	}
}

// readArchive reads r to its end. Whatever it returns must be cleaned up.
func (s *Store) readArchive(ctx context.Context, r io.Reader, p Progress) (*archive, error) {
	a := &archive{
		store: s, progress: p,
		files: map[string]*item{}, links: map[string]string{}, blobs: map[v1.Hash]*item{},
	}
	a.settling.SetLimit(maxSettling)
	var err error
	if in := randomAccess(r); in != nil {
		err = a.readAnywhere(ctx, in)
	} else {
		err = a.readThrough(ctx, r)
	}
	err = errors.Join(err, a.settling.Wait())
	if err == nil && len(a.files) == 0 {
		err = invalid("archive", "there is nothing in it")
	}
	return a, err
}

// readThrough reads an archive from front to end, and whatever is around it.
func (a *archive) readThrough(ctx context.Context, r io.Reader) error {
	source := &countingReader{ctx: ctx, r: r}
	stream, free, err := unpack(source)
	if err != nil {
		return source.cause(err)
	}
	defer free()
	return source.cause(a.readTar(stream, func(h *tar.Header, r io.Reader) error { return a.entry(ctx, h, r) }))
}

// countingReader keeps failures of the stream itself apart from what is wrong
// with its content, and ends when ctx does.
type countingReader struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other way to get it
	r   io.Reader
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	if c.err = c.ctx.Err(); c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

func (c *countingReader) cause(err error) error {
	if err != nil && c.err != nil {
		return c.err
	}
	return err
}

// cleanUp removes what didn't become a blob.
func (a *archive) cleanUp() {
	_ = a.settling.Wait()
	for _, t := range a.temps {
		_ = os.Remove(t)
	}
}

// readTar has entry see every file of an archive.
func (a *archive) readTar(stream io.Reader, entry func(*tar.Header, io.Reader) error) error {
	end := &endReader{r: stream}
	tr := tar.NewReader(end.seeking())
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if n == maxFiles {
			return invalid("archive", "more than %d files", maxFiles)
		}
		if err := entry(h, tr); err != nil {
			return err
		}
	}
	if end.zeros < tarBlockSize {
		return archiveError(io.ErrUnexpectedEOF)
	}
	return drain(stream)
}

// endReader counts the zero bytes it saw last: archive/tar doesn't tell an
// archive that ends from one that is cut off between two files.
type endReader struct {
	r     io.Reader
	zeros int
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	zeros := n - len(bytes.TrimRight(p[:n], "\x00"))
	if zeros == n {
		zeros += e.zeros
	}
	e.zeros = zeros
	return n, err
}

// seeking is e, with a Seek if what it reads has one: archive/tar then skips.
func (e *endReader) seeking() io.Reader {
	if s, ok := e.r.(io.Seeker); ok {
		return &seekingReader{endReader: e, s: s}
	}
	return e
}

type seekingReader struct {
	*endReader
	s io.Seeker
}

// Seek implements [io.Seeker].
func (r *seekingReader) Seek(offset int64, whence int) (int64, error) {
	r.zeros = 0
	return r.s.Seek(offset, whence)
}

// drain reads what follows the archive: padding only, and with it the checksum
// of the compression around it.
func drain(r io.Reader) error {
	buf := make([]byte, 64<<10)
	zero := make([]byte, len(buf))
	for total := 0; ; {
		n, err := r.Read(buf)
		if total += n; !bytes.Equal(buf[:n], zero[:n]) || total > maxTrailer {
			return invalid("archive", "something else follows after its end")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return archiveError(err)
		}
	}
}

func (a *archive) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil || name == "." {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		if isSparse(h) {
			if a.holes += h.Size; a.holes > maxHoles {
				return invalid("archive", "%q is sparse, and claims %d bytes", name, h.Size)
			}
		}
		i, err := a.read(ctx, name, h.Size, content{Reader: r})
		if err != nil {
			return err
		}
		return a.add(name, i)
	case tar.TypeSymlink:
		return a.link(name, path.Join(path.Dir(name), h.Linkname), h.Linkname)
	case tar.TypeLink:
		return a.link(name, h.Linkname, h.Linkname)
	}
	return nil
}

// cleanName takes "./" and the like away and refuses what leaves the archive.
// Nothing is ever extracted by name; an archive like that is just not trusted.
func cleanName(name string) (string, error) {
	if len(name) > maxName {
		return "", invalid("archive", "a name in it has more than %d bytes", maxName)
	}
	clean := path.Clean(name)
	if !fs.ValidPath(clean) {
		return "", invalid("archive", "the name %q leads out of it", name)
	}
	return clean, nil
}

func (a *archive) link(name, target, stated string) error {
	if len(target) > maxName || !a.roomFor(int64(len(name)+len(target)+perFile)) {
		return invalid("archive", "too many names in it, or too long ones")
	}
	clean := path.Clean(target)
	if path.IsAbs(stated) || !fs.ValidPath(clean) {
		return invalid("archive", "the link %q leads out of it, to %q", name, stated)
	}
	if a.files[name] != nil || a.links[name] != "" && a.links[name] != clean {
		return invalid("archive", "%q is in it twice", name)
	}
	a.links[name] = clean
	return nil
}

func (a *archive) add(name string, i *item) error {
	if was := a.files[name]; was != nil && was.digest != i.digest || a.links[name] != "" {
		return invalid("archive", "%q is in it twice", name)
	}
	if !a.roomFor(int64(len(name) + perFile)) {
		return invalid("archive", "too many names in it, or too long ones")
	}
	a.files[name] = i
	if was := a.blobs[i.digest]; was == nil {
		a.blobs[i.digest] = i
	}
	return nil
}

// file is the content at a path, through links.
func (a *archive) file(name string) (*item, error) {
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	for range maxLinks {
		if i := a.files[clean]; i != nil {
			return i, nil
		}
		next, ok := a.links[clean]
		if !ok {
			return nil, invalid("archive", "%q is missing", name)
		}
		clean = next
	}
	return nil, invalid("archive", "%q is a link that leads nowhere", name)
}

// text is the JSON at a path, nil if there is no such file.
func (a *archive) text(name string) ([]byte, error) {
	i, err := a.file(name)
	if err != nil {
		return nil, nil //nolint:nilerr // it isn't there
	}
	if i.raw == nil {
		return nil, invalid("archive", "its file %s is no JSON, or larger than %d bytes", name, maxConfig)
	}
	return i.raw, nil
}

// json is the JSON at a path, nil if there is none.
func (a *archive) json(name string) []byte {
	if i, err := a.file(name); err == nil {
		return i.raw
	}
	return nil
}

// blob is the item of a digest, nil if the archive has none.
func (a *archive) blob(h v1.Hash) *item {
	if i := a.blobs[h]; i != nil {
		return i
	}
	i, err := a.file(path.Join(blobsDir, h.Algorithm, h.Hex)) // a link to what has another name
	if err != nil || i.digest != h {
		return nil
	}
	return i
}

// has reports whether d is in the archive, or in the store already.
func (a *archive) has(d v1.Descriptor) bool {
	if i := a.blob(d.Digest); i != nil && i.size == d.Size {
		return true
	}
	return a.store.has(d)
}

// embedded takes in what a descriptor holds of its own blob (descriptor.md,
// "data"), unless the archive has the blob.
func (a *archive) embedded(d v1.Descriptor) {
	if len(d.Data) > 0 && a.blob(d.Digest) == nil && verify(d, d.Data) == nil {
		a.blobs[d.Digest] = &item{digest: d.Digest, size: d.Size, raw: d.Data, packing: sniff(d.Data)}
	}
}

// readDoc is the archive's [reader].
func (a *archive) readDoc(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	a.embedded(d)
	i := a.blob(d.Digest)
	if i == nil || i.raw == nil {
		return a.store.read(ctx, d, limit)
	}
	if i.size != d.Size {
		return nil, &DigestError{Digest: d.Digest, Size: d.Size, Bytes: i.size}
	}
	return i.raw, nil
}

// place brings d from the archive into the store.
func (a *archive) place(d v1.Descriptor) error {
	i := a.blob(d.Digest)
	if i == nil || a.store.has(d) {
		return nil
	}
	if i.size != d.Size {
		return &DigestError{Digest: d.Digest, Size: d.Size, Bytes: i.size}
	}
	if i.raw != nil {
		return a.store.writeBlob(d, i.raw)
	}
	if i.temp == "" {
		return &MissingError{Digest: d.Digest}
	}
	return a.store.place(i.temp, d.Digest)
}
