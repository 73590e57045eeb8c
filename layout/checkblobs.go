package layout

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobFile is a regular file in a blob's place.
type blobFile struct {
	hash v1.Hash
	size int64
}

// blobFiles lists them.
func (s *Store) blobFiles() ([]blobFile, error) {
	var all []blobFile
	err := s.eachBlobEntry(func(algorithm string, e fs.DirEntry) error {
		h, err := v1.NewHash(algorithm + ":" + e.Name())
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // not a blob
		}
		fi, err := os.Stat(s.BlobPath(h))
		if err == nil && fi.Mode().IsRegular() {
			all = append(all, blobFile{h, fi.Size()})
		}
		return nil
	})
	return all, err
}

// eachBlobEntry calls f for everything in the folders of digest algorithms that
// we know, in the order of their names.
func (s *Store) eachBlobEntry(f func(algorithm string, e fs.DirEntry) error) error {
	for _, algorithm := range []string{"sha256", "sha512"} {
		files, err := os.ReadDir(filepath.Join(s.dir, blobsDir, algorithm))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range files {
			if err := f(algorithm, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// hashing is one blob to be read.
type hashing struct {
	desc v1.Descriptor
	need *need // nil: no image needs it
}

// hashAll reads what is needed and what else lies about.
func (c *checker) hashAll(ctx context.Context, extra []blobFile) error {
	all := c.queue(extra)
	tell := c.teller(all)
	found := make([][]Problem, len(all))
	var mu sync.Mutex
	buffers := sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
	err := each(ctx, len(all), func(ctx context.Context, i int) error {
		mu.Lock()
		known := c.whole[all[i].desc.Digest]
		mu.Unlock()
		if known {
			return nil
		}
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		found[i] = c.examine(ctx, all[i], *buf, tell)
		if len(found[i]) == 0 {
			mu.Lock()
			c.whole[all[i].desc.Digest] = true
			mu.Unlock()
		}
		return ctx.Err()
	})
	c.report.Problems = append(slices.Concat(found...), c.report.Problems...)
	return err
}

// queue puts the largest first, so that no processor is left with a large one at
// the end.
func (c *checker) queue(extra []blobFile) []hashing {
	var all []hashing
	for _, n := range c.survey.needs {
		all = append(all, hashing{n.desc, n})
	}
	for _, f := range extra {
		all = append(all, hashing{v1.Descriptor{Digest: f.hash, Size: f.size}, nil})
	}
	slices.SortFunc(all, func(a, b hashing) int {
		return cmp.Or(cmp.Compare(b.desc.Size, a.desc.Size), strings.Compare(a.desc.Digest.Hex, b.desc.Digest.Hex))
	})
	return all
}

// teller counts what there is of the blobs, and returns whom to tell of every
// piece that has been read.
func (c *checker) teller(all []hashing) func(int) {
	var total int64
	for _, h := range all {
		if !c.store.has(h.desc) {
			continue
		}
		c.report.Blobs++
		c.report.Bytes += h.desc.Size
		if !c.whole[h.desc.Digest] {
			total += h.desc.Size
		}
	}
	var read atomic.Int64
	return func(n int) {
		if now := read.Add(int64(n)); c.options.Progress != nil {
			c.options.Progress(now, total)
		}
	}
}

// examine hashes one blob, and what is in it where that is asked for.
func (c *checker) examine(ctx context.Context, h hashing, buf []byte, tell func(int)) []Problem {
	p := Problem{Part: "blob", Digest: h.desc.Digest, Size: h.desc.Size, Path: blobPath(h.desc.Digest)}
	var want v1.Hash
	if h.need != nil {
		p.Part, p.Images = h.need.part, h.need.subjects()
		if c.options.Deep {
			want = h.need.diffID
		}
	}
	got, err := c.store.hashBlob(ctx, h.desc, want.Algorithm, buf, tell)
	var missing *MissingError
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &missing) && h.need == nil:
		return nil // collected, or whatever its owner did
	case errors.As(err, &missing):
		p.Kind = Missing
	case errors.Is(err, errUnpack) || err == nil && want != (v1.Hash{}) && got != want:
		p.Kind = Unequal
		if err == nil {
			err = invalid("layer "+h.desc.Digest.String(), "holds %s, and not %s as the config says", got, want)
		}
	case err == nil:
		return nil
	default:
		p.Kind = Unreadable
		var wrong *DigestError
		if errors.As(err, &wrong) {
			p.Kind = Damaged
		}
	}
	p.Err = err
	return []Problem{p}
}

// errUnpack marks a layer that is what its digest says, and can't be unpacked.
var errUnpack = errors.New("it cannot be unpacked")

// hashBlob verifies blob d, and returns the hash of what is packed in it by the
// algorithm inside, unless that is empty. It never holds more than buf of it.
func (s *Store) hashBlob(ctx context.Context, d v1.Descriptor, inside string, buf []byte, tell func(int)) (v1.Hash, error) {
	f, err := s.openBlob(d.Digest)
	if err != nil {
		return v1.Hash{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return v1.Hash{}, err
	}
	if fi.Size() != d.Size {
		return v1.Hash{}, &DigestError{Digest: d.Digest, Size: d.Size, Bytes: fi.Size()}
	}
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	r := &toldReader{ctx: ctx, r: f, to: h, tell: tell}
	var content v1.Hash
	var unpacking error
	if inside != "" {
		content, unpacking = hashContent(r, inside, buf)
	}
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, buf); err != nil {
		return content, err
	}
	if err := compare(d, r.n, h); err != nil {
		return content, err
	}
	return content, unpacking
}

// hashContent unpacks r.
func hashContent(r io.Reader, algorithm string, buf []byte) (v1.Hash, error) {
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	content, free, err := unpack(r)
	if err == nil {
		defer free()
		_, err = io.CopyBuffer(h, struct{ io.Reader }{content}, buf)
	}
	if err != nil {
		return v1.Hash{}, errors.Join(errUnpack, err)
	}
	return sum(algorithm, h), nil
}

// toldReader hashes what goes through it, says how much that is, and ends with ctx.
type toldReader struct {
	ctx  context.Context //nolint:containedctx // an io.Reader has no other way to get it
	r    io.Reader
	to   io.Writer
	tell func(int)
	n    int64
}

func (t *toldReader) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(p)
	_, _ = t.to.Write(p[:n]) // a hash never fails
	t.n += int64(n)
	t.tell(n)
	return n, err
}
