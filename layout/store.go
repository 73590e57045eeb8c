package layout

import (
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	blobsDir   = "blobs"
	ingestDir  = ".ingest"     // unfinished blobs
	storeLock  = ".lock"       // shared by who adds blobs, exclusive for who collects them
	indexLock  = ".index.lock" // exclusive for who writes index.json
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
// within a second, so that nobody waits in silence. The default is silence.
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
	if err := s.init(); err != nil {
		return nil, fmt.Errorf("open store %q: %w", dir, err)
	}
	return s, nil
}

// Dir is the store's folder, an absolute path.
func (s *Store) Dir() string { return s.dir }

// BlobPath is the file that holds, or would hold, the blob h.
func (s *Store) BlobPath(h v1.Hash) string {
	return filepath.Join(s.dir, blobsDir, h.Algorithm, h.Hex)
}
