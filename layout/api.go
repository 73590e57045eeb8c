package layout

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var errLater = errors.New("not written yet")

// Source is where the manifests and blobs of one image (or index) are read from.
type Source interface {
	Descriptor() v1.Descriptor
	Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error)
}

// PutOptions ...
type PutOptions struct {
	Names     []string
	Platforms []v1.Platform
	Progress  func(d v1.Descriptor, written int64)
}

// SaveOptions ...
type SaveOptions struct {
	Platforms []v1.Platform
	Progress  func(d v1.Descriptor, written int64)
}

// LoadOptions ...
type LoadOptions struct {
	Platforms []v1.Platform
	Progress  func(d v1.Descriptor, written int64)
}

// RemoveOptions ...
type RemoveOptions struct {
	Force bool // an ID may have several names: drop them all
}

// Removed is what Remove did.
type Removed struct {
	Untagged  []string  // full names
	Deleted   []v1.Hash // digests that no entry points at any more
	Collected Collected
}

// Collected is what Collect did.
type Collected struct {
	Busy  bool // somebody is adding blobs: the garbage is left for the next
	Blobs []v1.Hash
	Bytes int64
}

// PlatformInfo ...
type PlatformInfo struct {
	Descriptor v1.Descriptor
	Platform   v1.Platform
	Present    bool
	Size       int64
}

type NotFoundError struct{ Ref string }
type AmbiguousError struct {
	Ref string
	IDs []v1.Hash
}
type InUseError struct { // an ID with several names, without Force
	Ref   string
	Names []string
}
type DigestError struct {
	Digest  v1.Hash
	Size    int64
	Got     v1.Hash
	GotSize int64
}

func (e *NotFoundError) Error() string  { return "" }
func (e *AmbiguousError) Error() string { return "" }
func (e *InUseError) Error() string     { return "" }
func (e *DigestError) Error() string    { return "" }

type Image struct{ desc v1.Descriptor }

func (i *Image) Name() string              { return "" }
func (i *Image) RefName() string           { return "" } // a foreign tool's bare tag
func (i *Image) Unnamed() *Image           { return i }
func (i *Image) IsIndex() bool             { return false }
func (i *Image) Descriptor() v1.Descriptor { return i.desc }
func (i *Image) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	return nil, errLater
}
func (i *Image) Path(d v1.Descriptor) (string, bool)       { return "", false }
func (i *Image) Select(p v1.Platform) (*Image, error)      { return nil, errLater }
func (i *Image) Best() (*Image, error)                     { return nil, errLater } // this machine's platform, else the first present
func (i *Image) Platforms() ([]PlatformInfo, error)        { return nil, errLater }
func (i *Image) Config() (*v1.ConfigFile, error)           { return nil, errLater }
func (i *Image) RawConfig() ([]byte, error)                { return nil, errLater }
func (i *Image) Manifest() (*v1.Manifest, error)           { return nil, errLater }
func (i *Image) IndexManifest() (*v1.IndexManifest, error) { return nil, errLater }
func (i *Image) RawManifest() ([]byte, error)              { return nil, errLater } // of a manifest or index
func (i *Image) Created() time.Time                        { return time.Time{} }
func (i *Image) Tagged() time.Time                         { return time.Time{} }
func (i *Image) Size() int64                               { return 0 }

func (s *Store) List() ([]*Image, error)           { return nil, errLater }
func (s *Store) Find(ref string) ([]*Image, error) { return nil, errLater }
func (s *Store) Tag(img *Image, name string) error { return errLater }
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) (*Removed, error) {
	return nil, errLater
}
func (s *Store) Collect(ctx context.Context) (Collected, error) { return Collected{}, errLater }
func (s *Store) Put(ctx context.Context, src Source, o PutOptions) (*Image, error) {
	return nil, errLater
}
func (s *Store) Adopt(ctx context.Context, src Source, names []string) (v1.Descriptor, error) {
	return v1.Descriptor{}, errLater
}
func (s *Store) Lookup(ctx context.Context, name reference.Named, p v1.Platform) (v1.Descriptor, error) {
	return v1.Descriptor{}, errLater
}
func (s *Store) Save(ctx context.Context, w io.Writer, images []*Image, o SaveOptions) error {
	return errLater
}
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]*Image, error) {
	return nil, errLater
}
func (s *Store) init() error { return nil }
