package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	bufferSize    = 1 << 20
	writebackStep = 8 << 20 // bytes after which the kernel is told to begin writing
	worthResuming = 1 << 20 // bytes of a broken transfer that are kept
	maxAttempts   = 5       // at one blob, each of which must have moved something
)

// sourceError marks a failure of the source: a transfer that may be resumed.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// readVerified reads all of r, which must be blob d and not larger than limit.
func readVerified(r io.Reader, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, invalid("blob "+d.Digest.String(), "%d bytes, which is more than the %d it may have", d.Size, limit)
	}
	raw, err := readAtMost(r, d.Size+1)
	if err != nil {
		return nil, err
	}
	return raw, verify(d, raw)
}

// readAtMost doesn't trust the announced size enough to allocate it at once.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(limit, 64<<10)) + bytes.MinRead)
	_, err := b.ReadFrom(io.LimitReader(r, limit))
	return b.Bytes(), err
}

func verify(d v1.Descriptor, raw []byte) error {
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return err
	}
	h.Write(raw)
	return compare(d, int64(len(raw)), h)
}

// compare checks what was read against what was announced.
func compare(d v1.Descriptor, n int64, h hash.Hash) error {
	if n != d.Size {
		return &DigestError{Digest: d.Digest, Size: d.Size, Bytes: n}
	}
	if got := sum(d.Digest.Algorithm, h); got != d.Digest {
		return &DigestError{Digest: d.Digest, Size: d.Size, Got: got, Bytes: n}
	}
	return nil
}

func sum(algorithm string, h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: algorithm, Hex: fmt.Sprintf("%x", h.Sum(nil))}
}

// ingest is a blob on its way: a file beside the blobs, hashed while it is
// written, that gets a blob's place once it is whole.
type ingest struct {
	file    *os.File
	hash    hash.Hash
	n       int64 // bytes written and hashed
	started int64 // of these, bytes whose way to the disk was begun
}

// ingestPath is where blob h grows; every process picks the same one.
func (s *Store) ingestPath(h v1.Hash) string {
	return filepath.Join(s.dir, ingestDir, h.Algorithm+"-"+h.Hex)
}

// newIngest begins a blob whose digest isn't known yet.
func (s *Store) newIngest(algorithm string) (*ingest, error) {
	if err := os.MkdirAll(s.path(ingestDir), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.path(ingestDir), "new-*")
	if err != nil {
		return nil, err
	}
	g := &ingest{file: f}
	if err := f.Chmod(0o644); err != nil {
		return nil, errors.Join(err, g.discard())
	}
	if g.hash, err = v1.Hasher(algorithm); err != nil {
		return nil, errors.Join(err, g.discard())
	}
	return g, nil
}

// resumeIngest goes on with blob d where a process that is gone left it. The
// caller holds the blob's lock.
func (s *Store) resumeIngest(d v1.Descriptor) (*ingest, error) {
	f, err := os.OpenFile(s.ingestPath(d.Digest), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	g := &ingest{file: f}
	if g.hash, err = v1.Hasher(d.Digest.Algorithm); err != nil {
		return nil, errors.Join(err, g.discard())
	}
	g.n, err = io.CopyBuffer(g.hash, struct{ io.Reader }{f}, make([]byte, bufferSize))
	if err == nil && g.n >= d.Size { // a whole one would have been renamed: it was the wrong one
		err = g.restart()
	}
	if err != nil {
		return nil, errors.Join(err, g.discard())
	}
	return g, nil
}

func (g *ingest) restart() error {
	g.hash.Reset()
	g.n, g.started = 0, 0
	if _, err := g.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return g.file.Truncate(0)
}

func (g *ingest) Write(p []byte) (int, error) {
	n, err := g.file.Write(p)
	g.hash.Write(p[:n])
	g.n += int64(n)
	if g.n-g.started >= writebackStep {
		startWriteback(g.file, g.started, g.n-g.started)
		g.started = g.n
	}
	return n, err
}

// settle brings what was written to the disk and closes the file.
func (g *ingest) settle() error {
	return errors.Join(syncData(g.file), g.file.Close())
}

// discard removes the file, closed or not.
func (g *ingest) discard() error {
	_ = g.file.Close()
	return os.Remove(g.file.Name())
}

// place makes the settled file blob h. The folder is not synced.
func (s *Store) place(file string, h v1.Hash) error {
	target := s.BlobPath(h)
	err := os.Rename(file, target)
	if !os.IsNotExist(err) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return errors.Join(os.Rename(file, target), syncDir(s.path(blobsDir)))
}

// syncBlobs makes the names of these blobs durable.
func (s *Store) syncBlobs(added []v1.Descriptor) error {
	algorithms := map[string]bool{}
	for _, d := range added {
		algorithms[d.Digest.Algorithm] = true
	}
	var err error
	for a := range algorithms {
		err = errors.Join(err, syncDir(filepath.Join(s.dir, blobsDir, a)))
	}
	return err
}

// fetch brings blob d of src into the store, unless it is there. Of processes
// that want the same blob one transfers it, the others wait for it.
func (s *Store) fetch(ctx context.Context, src Source, d v1.Descriptor, p Progress) error {
	if s.has(d) {
		report(p, d, d.Size)
		return nil
	}
	unlock, err := s.lockBlob(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	if s.has(d) {
		report(p, d, d.Size)
		return nil
	}
	if done, err := s.linkFrom(ctx, src, d, p); done || err != nil {
		return err
	}
	g, err := s.resumeIngest(d)
	if err != nil {
		return err
	}
	resumed := g.n
	err = transfer(ctx, g, src, d, p)
	var wrong *DigestError
	if resumed > 0 && errors.As(err, &wrong) { // the old part may be the wrong one
		if err = g.restart(); err == nil {
			err = transfer(ctx, g, src, d, p)
		}
	}
	return s.finish(g, d, err)
}

// finish gives a fetched blob its place, or cleans up after err.
func (s *Store) finish(g *ingest, d v1.Descriptor, err error) error {
	if err == nil {
		err = g.settle()
	}
	if err == nil {
		err = s.place(g.file.Name(), d.Digest)
	}
	var broken *sourceError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken) && g.n >= worthResuming:
		_ = g.file.Close() // who resumes hashes what got there
		return err
	default:
		return errors.Join(err, g.discard())
	}
}

// lockBlob keeps other processes from fetching blob h at the same time.
func (s *Store) lockBlob(ctx context.Context, h v1.Hash) (release func(), err error) {
	if err := os.MkdirAll(s.path(ingestDir), 0o755); err != nil {
		return nil, err
	}
	file := s.ingestPath(h) + ".lock"
	unlock, err := s.lock(ctx, file, (*flock.Flock).TryLock, fmt.Sprintf("waiting for another process that fetches blob %s", h))
	if err != nil {
		return nil, err
	}
	return func() {
		if _, err := os.Stat(s.BlobPath(h)); err == nil {
			_ = os.Remove(file) // who waits for it, or locks a new one, finds the blob
		}
		unlock()
	}, nil
}

// transfer fills g up to d's size from src and verifies it. A reader that ends
// early is opened again where it ended.
func transfer(ctx context.Context, g *ingest, src Source, d v1.Descriptor, p Progress) error {
	report(p, d, g.n)
	if len(d.Data) > 0 && verify(d, d.Data) == nil && g.n == 0 {
		_, err := g.Write(d.Data)
		report(p, d, g.n)
		return err
	}
	for attempt := 1; ; attempt++ {
		was := g.n
		err := transferOnce(ctx, g, src, d, p)
		var broken *sourceError
		if err == nil || !errors.As(err, &broken) || ctx.Err() != nil || g.n == was || attempt == maxAttempts {
			return err
		}
	}
}

func transferOnce(ctx context.Context, g *ingest, src Source, d v1.Descriptor, p Progress) (err error) {
	r, err := src.Open(ctx, d, g.n)
	if err != nil {
		return &sourceError{err}
	}
	defer r.Close()
	buf := make([]byte, min(bufferSize, d.Size+1))
	for {
		if err := ctx.Err(); err != nil {
			return &sourceError{err}
		}
		n, err := r.Read(buf)
		if g.n+int64(n) > d.Size {
			return &DigestError{Digest: d.Digest, Size: d.Size, Bytes: g.n + int64(n)}
		}
		if n > 0 {
			if _, err := g.Write(buf[:n]); err != nil {
				return err
			}
			if g.n < d.Size {
				report(p, d, g.n)
			}
		}
		switch {
		case err == io.EOF && g.n < d.Size:
			return &sourceError{&DigestError{Digest: d.Digest, Size: d.Size, Bytes: g.n}}
		case err == io.EOF:
			if err := compare(d, g.n, g.hash); err != nil {
				return err
			}
			report(p, d, g.n)
			return nil
		case err != nil:
			return &sourceError{err}
		}
	}
}

// writeBlob brings raw into the store, which must be blob d.
func (s *Store) writeBlob(d v1.Descriptor, raw []byte) error {
	if s.has(d) {
		return nil
	}
	if err := verify(d, raw); err != nil {
		return err
	}
	g, err := s.newIngest(d.Digest.Algorithm)
	if err != nil {
		return err
	}
	_, err = g.Write(raw)
	return s.finish(g, d, err)
}
