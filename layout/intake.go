package layout

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// content is what a file of an archive holds.
type content struct {
	io.Reader
	file  *os.File // if not nil, it holds the same
	at    int64    // from here on
	lease *lease   // on file, if there is one
}

// blobName is the digest that a path below blobs promises.
func blobName(name string) (v1.Hash, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != blobsDir {
		return v1.Hash{}, false
	}
	h, err := v1.NewHash(parts[1] + ":" + parts[2])
	return h, err == nil
}

// read takes one file in, and checks it against the digest in its name.
func (a *archive) read(ctx context.Context, name string, size int64, c content) (*item, error) {
	want, isBlob := blobName(name)
	if !isBlob {
		want.Algorithm = "sha256"
	}
	head, err := readAtMost(c, min(size, tarBlockSize))
	if err != nil {
		return nil, archiveError(err)
	}
	i := &item{size: size, packing: sniff(head)}
	c.Reader = io.MultiReader(bytes.NewReader(head), c.Reader)
	known := isBlob && a.store.has(v1.Descriptor{Digest: want, Size: size})
	switch {
	case len(head) > 0 && (head[0] == '{' || head[0] == '[') && size <= maxConfig:
		err = a.keep(i, want.Algorithm, c)
	case known:
		err = a.skip(i, want, c)
	case size <= maxSmall:
		if err = a.keep(i, want.Algorithm, c); err == nil {
			report(a.progress, i.descriptor(), 0)
			report(a.progress, i.descriptor(), i.size)
		}
	default:
		err = a.spool(ctx, i, want, c)
	}
	if err == nil && isBlob && i.digest != want {
		err = &DigestError{Digest: want, Size: size, Got: i.digest, Bytes: size}
	}
	return i, err
}

// maxSmall bytes are kept in memory whatever they are: a file of its own for each
// of a great many tiny ones would take minutes.
const maxSmall = 4 << 10

// keep reads JSON, and what is as small, into memory.
func (a *archive) keep(i *item, algorithm string, c io.Reader) error {
	if !a.roomFor(i.size) {
		return invalid("archive", "more than %d bytes of manifests and configs in it", maxArchived)
	}
	raw, err := readAtMost(c, i.size)
	if err != nil {
		return archiveError(err)
	}
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return err
	}
	h.Write(raw)
	if raw == nil {
		raw = []byte{}
	}
	i.raw, i.digest = raw, sum(algorithm, h)
	return nil
}

// roomFor reports whether so many bytes more may be kept in memory.
func (a *archive) roomFor(size int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept += size
	return a.kept <= maxArchived
}

// skip only hashes what the store has: an archive that lies is refused anyway.
func (a *archive) skip(i *item, want v1.Hash, c io.Reader) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(h, c, make([]byte, bufferSize)); err != nil {
		return archiveError(err)
	}
	i.digest = sum(want.Algorithm, h)
	report(a.progress, i.descriptor(), i.size)
	return nil
}

// spool brings a file into the ingest folder.
func (a *archive) spool(ctx context.Context, i *item, want v1.Hash, c content) error {
	g, err := a.newTemp(i, want.Algorithm)
	if err != nil {
		return err
	}
	told := func(n int64) {
		if want.Hex != "" && n < i.size {
			report(a.progress, v1.Descriptor{Digest: want, Size: i.size}, n)
		}
	}
	told(0)
	shared, err := c.shareWith(ctx, g, i.size, told)
	if !shared {
		err = g.copyFrom(c, i.size, told)
	}
	if err != nil {
		return errors.Join(err, g.file.Close())
	}
	i.digest = sum(want.Algorithm, g.hash)
	a.settling.Go(func() error {
		err := g.settle()
		if want.Hex == "" { // only now its digest is known
			report(a.progress, i.descriptor(), 0)
		}
		report(a.progress, i.descriptor(), i.size)
		return err
	})
	return nil
}

// newTemp begins the file of an item.
func (a *archive) newTemp(i *item, algorithm string) (*ingest, error) {
	g, err := a.store.newIngest(algorithm)
	if err != nil {
		return nil, err
	}
	i.temp = g.file.Name()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.temps = append(a.temps, i.temp)
	return g, nil
}

// shareWith has g share the blocks of the archive's file, where the file system
// can and they lie well. Hashed is the archive's file, which is likely to be in
// memory, if nobody can have written to it meanwhile; else g's, which is ours.
func (c content) shareWith(ctx context.Context, g *ingest, size int64, told func(int64)) (done bool, err error) {
	whole := size - size%cloneAlign
	if !c.cloneTo(g.file, whole) {
		return false, nil
	}
	if _, err := g.file.Seek(whole, io.SeekStart); err != nil {
		return true, err
	}
	tail := io.NewSectionReader(c.file, c.at+whole, size-whole)
	if n, err := io.Copy(g.file, tail); err != nil || n < tail.Size() {
		return true, archiveError(errors.Join(err, io.ErrUnexpectedEOF))
	}
	if c.lease != nil {
		if err := g.hashAt(ctx, c.file, c.at, size, told); err != nil || c.lease.held() {
			return true, err
		}
		g.hash.Reset()
		g.n = 0
	}
	return true, g.hashAt(ctx, g.file, 0, size, told)
}

// hashAt hashes size bytes of a file from at on.
func (g *ingest) hashAt(ctx context.Context, f *os.File, at, size int64, told func(int64)) error {
	buf := make([]byte, bufferSize)
	for g.n < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		if g.n%writebackStep == 0 {
			readAhead(f, at+g.n, 2*writebackStep)
		}
		n, err := f.ReadAt(buf[:min(bufferSize, size-g.n)], at+g.n)
		if err != nil {
			return err
		}
		g.hash.Write(buf[:n])
		g.n += int64(n)
		told(g.n)
	}
	return nil
}

// cloneTo reports whether the first n bytes could be shared with dst.
func (c content) cloneTo(dst *os.File, n int64) bool {
	return c.file != nil && n >= alignFrom && c.at%cloneAlign == 0 && cloneRange(dst, 0, c.file, c.at, n) == nil
}

// copyFrom writes size bytes of r.
func (g *ingest) copyFrom(r io.Reader, size int64, told func(int64)) error {
	h := hashBehind(g.hash, size)
	defer h.wait()
	for g.n < size {
		buf := <-h.free
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-g.n)])
		h.full <- buf[:n]
		if err != nil {
			return archiveError(err)
		}
		if _, err := g.put(buf[:n]); err != nil {
			return err
		}
		told(g.n)
	}
	return nil
}

// put writes what somebody else hashes.
func (g *ingest) put(p []byte) (int, error) {
	n, err := g.file.Write(p)
	g.n += int64(n)
	g.started = writeback(g.file, g.started, g.n)
	return n, err
}

// behind hashes in a goroutine of its own, so that another one can read and
// write meanwhile. Buffers come from free and are handed over to full.
type behind struct {
	free, full chan []byte
	done       chan struct{}
}

// hashBehind hashes into h until wait is called, after which h may be used.
func hashBehind(h hash.Hash, size int64) *behind {
	const buffers = 4
	b := &behind{free: make(chan []byte, buffers), full: make(chan []byte, buffers), done: make(chan struct{})}
	for range buffers {
		b.free <- make([]byte, min(bufferSize/2, size+1))
	}
	go func() {
		defer close(b.done)
		for p := range b.full {
			h.Write(p)
			b.free <- p[:cap(p)]
		}
	}()
	return b
}

func (b *behind) wait() {
	close(b.full)
	<-b.done
}
