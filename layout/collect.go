package layout

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Collected is what [Store.Collect] did.
type Collected struct {
	Busy  bool      // somebody is adding blobs: the garbage is left for the next time
	Blobs []v1.Hash // deleted, manifests first
	Bytes int64     // freed: none for a blob of which the build cache holds a link
}

// Collect deletes every blob that no entry of index.json reaches, and what
// processes that are gone left unfinished. It never waits: while anybody adds
// blobs it does nothing and says Busy. Nothing is deleted unless every manifest
// that is present can be read.
func (s *Store) Collect(ctx context.Context) (Collected, error) {
	l := flock.New(s.path(storeLock))
	got, err := l.TryLock()
	if err != nil {
		return Collected{}, err
	}
	if !got {
		return Collected{Busy: true}, nil
	}
	defer l.Unlock() //nolint:errcheck // closing the file drops the lock whatever it says
	return s.collect(ctx)
}

// collect is called by who holds the store exclusively.
func (s *Store) collect(ctx context.Context) (Collected, error) {
	marked, err := s.mark(ctx)
	if err != nil {
		return Collected{}, err
	}
	left, err := s.clearIngest()
	if err != nil {
		return Collected{}, err
	}
	c, err := s.sweep(ctx, marked)
	c.Bytes += left
	return c, err
}

// mark returns every digest that index.json reaches.
func (s *Store) mark(ctx context.Context) (map[v1.Hash]bool, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	roots, err := distinct(entries)
	if err != nil {
		return nil, err
	}
	reached := make([][]v1.Hash, len(roots))
	err = each(ctx, len(roots), func(ctx context.Context, i int) (err error) {
		reached[i], err = s.reach(ctx, roots[i])
		return err
	})
	marked := make(map[v1.Hash]bool, 4*len(roots))
	for i, hashes := range reached {
		marked[roots[i].Digest] = true
		for _, h := range hashes {
			marked[h] = true
		}
	}
	return marked, err
}

// distinct are the entries' descriptors, each digest once.
func distinct(entries []listed) ([]v1.Descriptor, error) {
	roots := make([]v1.Descriptor, 0, len(entries))
	seen := make(map[string]bool, len(entries))
	for i := range entries {
		e := &entries[i]
		if seen[e.Digest] {
			continue
		}
		seen[e.Digest] = true
		h, err := v1.NewHash(e.Digest)
		if err != nil { // its blobs can't be known
			return nil, invalid(indexFile, "entry %d has no valid digest", i)
		}
		roots = append(roots, v1.Descriptor{MediaType: e.MediaType, Size: e.Size, Digest: h})
	}
	return roots, nil
}

// each calls f for 0 to n-1 on all processors, until one fails. It starts no
// goroutine per call: growing that many stacks would take longer than f.
func each(ctx context.Context, n int, f func(context.Context, int) error) error {
	var next atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for gctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					break
				}
				if err := f(gctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// reach returns the digests below d, also those of blobs that are missing.
func (s *Store) reach(ctx context.Context, d v1.Descriptor) ([]v1.Hash, error) {
	t, err := walk(ctx, d, walker{read: s.read, sparse: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // an entry whose manifest is gone reaches nothing
	}
	if err != nil {
		return nil, err
	}
	reached := make([]v1.Hash, 0, len(t.docs)+len(t.blobs))
	for _, doc := range t.docs {
		for _, c := range doc.children { // also those that are missing
			reached = append(reached, c.Digest)
		}
	}
	for _, d := range t.blobs {
		reached = append(reached, d.Digest)
	}
	return reached, nil
}

// clearIngest is called when nobody is adding blobs, so all of it is abandoned.
func (s *Store) clearIngest() (freed int64, err error) {
	left, err := os.ReadDir(s.path(ingestDir))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	for _, e := range left {
		if fi, err := e.Info(); err == nil {
			freed += ownBytes(fi)
		}
		err = errors.Join(err, os.Remove(filepath.Join(s.dir, ingestDir, e.Name())))
	}
	return freed, err
}

// ownBytes are those that removing the file frees.
func ownBytes(fi fs.FileInfo) int64 {
	if hardLinks(fi) > 1 {
		return 0
	}
	return fi.Size()
}

// garbage is a blob nobody needs.
type garbage struct {
	hash     v1.Hash
	frees    int64
	document bool
}

// sweep deletes what isn't marked. Manifests go first: who finds one after a
// crash must find what is below it too.
func (s *Store) sweep(ctx context.Context, marked map[v1.Hash]bool) (Collected, error) {
	all, err := s.unmarked(marked)
	if err != nil {
		return Collected{}, err
	}
	var c Collected
	for _, documents := range []bool{true, false} {
		for _, g := range all {
			if g.document != documents {
				continue
			}
			if err := ctx.Err(); err != nil {
				return c, err
			}
			if err := os.Remove(s.BlobPath(g.hash)); err != nil {
				return c, err
			}
			c.Blobs = append(c.Blobs, g.hash)
			c.Bytes += g.frees
		}
	}
	return c, nil
}

// unmarked lists the files under blobs that are blobs and not marked. Whatever
// else lies there isn't ours.
func (s *Store) unmarked(marked map[v1.Hash]bool) ([]garbage, error) {
	var all []garbage
	for _, algorithm := range []string{"sha256", "sha512"} {
		files, err := os.ReadDir(filepath.Join(s.dir, blobsDir, algorithm))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			h, err := v1.NewHash(algorithm + ":" + f.Name())
			if err != nil || marked[h] || !f.Type().IsRegular() {
				continue
			}
			fi, err := f.Info()
			if err != nil {
				return nil, err
			}
			all = append(all, garbage{hash: h, frees: ownBytes(fi), document: s.looksLikeDocument(h, fi.Size())})
		}
	}
	return all, nil
}

// looksLikeDocument reports whether a blob of which only the digest is known is
// a manifest or an index.
func (s *Store) looksLikeDocument(h v1.Hash, size int64) bool {
	if size > maxManifest {
		return false
	}
	raw, err := os.ReadFile(s.BlobPath(h))
	if err != nil || len(raw) == 0 || raw[0] != '{' {
		return false
	}
	var doc struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	return json.Unmarshal(raw, &doc) == nil && doc.SchemaVersion > 0
}
