package layout

import (
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ingest is a blob on its way: a file beside the blobs, hashed while it is
// written, that gets a blob's place once it is whole.
type ingest struct {
	file    *os.File
	hash    hash.Hash
	n       int64  // bytes from the beginning on that are written and hashed
	started int64  // of these, bytes whose way to the disk was begun
	beyond  []span // what is there after n, from a transfer over several connections
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
	if g.hash, err = v1.Hasher(d.Digest.Algorithm); err == nil {
		err = g.recall(d.Size)
	}
	if err != nil {
		return nil, errors.Join(err, g.discard())
	}
	return g, nil
}

// recall finds out what is there of a blob of size bytes, and hashes its
// beginning.
func (g *ingest) recall(size int64) error {
	fi, err := g.file.Stat()
	if err != nil {
		return err
	}
	noted, err := readParts(g.partsName(), min(fi.Size(), size))
	if err != nil {
		return err
	}
	there := fi.Size()
	if noted != nil {
		there = 0
		if len(noted) > 0 && noted[0].start == 0 {
			there, noted = noted[0].end, noted[1:]
		}
	}
	if len(noted) == 0 { // in order: what isn't noted goes, and then the notes
		if err := errors.Join(g.file.Truncate(there), g.forgetParts()); err != nil {
			return err
		}
	}
	g.n, err = io.CopyBuffer(g.hash, struct{ io.Reader }{io.NewSectionReader(g.file, 0, there)}, make([]byte, bufferSize))
	if err == nil && g.n >= size { // a whole one would have been renamed: it was the wrong one
		return g.restart()
	}
	g.beyond = noted
	if _, seekErr := g.file.Seek(g.n, io.SeekStart); err == nil {
		err = seekErr
	}
	return err
}

// partsName is the file that notes what is there of a blob in pieces.
func (g *ingest) partsName() string { return g.file.Name() + ".parts" }

func (g *ingest) forgetParts() error {
	err := os.Remove(g.partsName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// has is how many bytes are there.
func (g *ingest) has() int64 {
	n := g.n
	for _, s := range g.beyond {
		n += s.end - s.start
	}
	return n
}

func (g *ingest) restart() error {
	g.hash.Reset()
	g.n, g.started, g.beyond = 0, 0, nil
	if _, err := g.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return errors.Join(g.file.Truncate(0), g.forgetParts())
}

func (g *ingest) Write(p []byte) (int, error) {
	n, err := g.file.Write(p)
	g.hash.Write(p[:n])
	g.n += int64(n)
	g.started = writeback(g.file, g.started, g.n)
	return n, err
}

// writeback begins to bring a file's bytes from start on to the disk if they are
// worth it, and returns up to where it was begun.
func writeback(f *os.File, start, end int64) int64 {
	if end-start < writebackStep {
		return start
	}
	startWriteback(f, start, end-start)
	return end
}

// settle brings what was written to the disk and closes the file.
func (g *ingest) settle() error {
	return errors.Join(syncData(g.file), g.file.Close())
}

// discard removes the file, closed or not.
func (g *ingest) discard() error {
	_ = g.file.Close()
	return errors.Join(os.Remove(g.file.Name()), g.forgetParts())
}
