package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	blobsDir   = "blobs"
	ingestDir  = ".ingest"     // unfinished blobs
	storeLock  = ".lock"       // shared by who adds blobs, exclusive for who collects them
	indexLock  = ".index.lock" // exclusive for who writes index.json

	layoutContent = `{"imageLayoutVersion":"1.0.0"}`
	emptyIndex    = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
)

// Store is an image store in one folder. It holds no state and no open files:
// any number of Stores, in any number of processes, may use one folder.
type Store struct {
	dir    string
	notice func(msg string)
}

// Option changes how [Open] sets up a Store.
type Option func(*Store)

// WithNotice has f told, in one line, when a lock of the store was not had
// within a second, so that nobody waits in silence. Without it nobody is told.
// f must be safe for concurrent calls.
func WithNotice(f func(msg string)) Option {
	return func(s *Store) { s.notice = f }
}

// Open returns the store in dir, an OCI image layout of anybody's making. Where
// there is none, an empty one is created, with its parent folders; a folder
// that holds something else is refused. An existing layout is only read, so
// Open works on read-only stores too.
func Open(dir string, opts ...Option) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", dir, err)
	}
	s := &Store{dir: abs, notice: func(string) {}}
	for _, o := range opts {
		o(s)
	}
	if err := s.create(); err != nil {
		return nil, &openError{dir: dir, abs: abs, err: err}
	}
	return s, nil
}

// openError is why a folder can't be used as a store. It names the folder once:
// of a file below it only the rest of the path.
type openError struct {
	dir, abs string // as it was asked for, and whole
	err      error
}

func (e *openError) Error() string {
	why := e.err
	if at, ok := errors.AsType[*fs.PathError](e.err); ok {
		switch below, err := filepath.Rel(e.abs, at.Path); {
		case err != nil || !filepath.IsLocal(below):
		case below == "." || errors.Is(at.Err, syscall.ENOTDIR):
			why = at.Err
		default:
			why = &fs.PathError{Op: at.Op, Path: below, Err: at.Err}
		}
	}
	return fmt.Sprintf("open store %q: %v", e.dir, why)
}

func (e *openError) Unwrap() error { return e.err }

// Dir is the store's folder, an absolute path.
func (s *Store) Dir() string { return s.dir }

// BlobPath is the file that holds, or would hold, the blob h.
func (s *Store) BlobPath(h v1.Hash) string {
	return filepath.Join(s.dir, blobsDir, h.Algorithm, h.Hex)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// create makes an empty layout unless there is a layout. Of processes that do
// this at once, each writes the same bytes where there is nothing, so none can
// undo what another already put in.
func (s *Store) create() error {
	marker, err := os.ReadFile(s.path(layoutFile))
	if err == nil {
		if !strings.Contains(string(marker), "imageLayoutVersion") {
			return invalid(layoutFile, "no image layout version in it")
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.refuseForeign(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.dir, blobsDir, "sha256"), 0o755); err != nil {
		return err
	}
	if err := s.createFile(indexFile, emptyIndex); err != nil {
		return err
	}
	if err := s.createFile(layoutFile, layoutContent); err != nil { // last: it makes the folder a layout
		return err
	}
	return syncDir(s.dir)
}

// refuseForeign keeps a mistyped path from turning somebody's folder into a store.
func (s *Store) refuseForeign() error {
	found, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range found {
		switch name := e.Name(); {
		case strings.HasPrefix(name, "."), name == blobsDir, name == indexFile, name == layoutFile:
		case name == "lost+found": // a file system of its own
		default:
			return fmt.Errorf("not an image layout, and not empty (it holds %q)", name)
		}
	}
	return nil
}

// createFile brings name into the folder whole, unless it is there.
func (s *Store) createFile(name, content string) error {
	tmp, err := os.CreateTemp(s.dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // a leftover is hidden and harmless
	_, err = tmp.WriteString(content)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err = os.Link(tmp.Name(), s.path(name)); err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if _, err := os.Stat(s.path(name)); err == nil { // no hard links here
		return nil
	}
	return os.Rename(tmp.Name(), s.path(name))
}
