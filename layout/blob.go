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
	maxAttempts   = 5       // at one blob, each of which must have made headway
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

// fetch brings blob d of src into the store, unless it is there. Of processes
// that want the same blob one transfers it, the others wait for it.
func (s *Store) fetch(ctx context.Context, src Source, d v1.Descriptor, l *lanes, p Progress) error {
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
	return s.fetchAnew(ctx, src, d, l, p)
}

// fetchAnew reads blob d of src, whatever the store has in its place. The caller
// keeps others from doing the same.
func (s *Store) fetchAnew(ctx context.Context, src Source, d v1.Descriptor, l *lanes, p Progress) error {
	a, err := l.enter(ctx)
	if err != nil {
		return err
	}
	defer a.leave()
	g, err := s.resumeIngest(d)
	if err != nil {
		return err
	}
	resumed := g.has()
	t := newTeller(p, d)
	err = transfer(ctx, g, src, d, a, t)
	var wrong *DigestError
	if resumed > 0 && errors.As(err, &wrong) { // the old part may be the wrong one
		if err = g.restart(); err == nil {
			err = transfer(ctx, g, src, d, a, t)
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
		return g.forgetParts()
	case errors.As(err, &broken) && g.has() >= worthResuming:
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

// transfer fills g up to d's size from src and verifies it.
func transfer(ctx context.Context, g *ingest, src Source, d v1.Descriptor, a *lane, t *teller) error {
	t.there(g.has())
	if len(d.Data) > 0 && verify(d, d.Data) == nil && g.has() == 0 {
		if _, err := g.Write(d.Data); err != nil {
			return err
		}
	} else if err := newDownload(src, d, g, a, t).run(ctx); err != nil {
		return err
	}
	t.there(d.Size)
	return nil
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
