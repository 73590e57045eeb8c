//go:build linux

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// landings is the folder in a state folder where results of nodes come in.
const landings = "landing"

// landing is where the blobs of a result come in from nodes: a folder beside the image
// store, without those that the store has. What comes is verified.
type landing struct {
	content.Store
	dir   string
	store Store
	lock  *flock.Flock // says that somebody is here
}

// newLanding makes a landing, and removes those that a killed process has left.
func newLanding(store Store, state State) (_ *landing, err error) {
	parent := filepath.Join(state.Dir, landings)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	making := flock.New(parent + "." + lockName) // or one that is about to be locked would be removed
	if err := making.Lock(); err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	defer func() { err = errors.Join(err, making.Unlock()) }()
	old, err := filepath.Glob(filepath.Join(parent, "*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		removeLanding(dir)
	}
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	l := &landing{dir: dir, store: store, lock: landingLock(dir)}
	if err := l.lock.Lock(); err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	if l.Store, err = contentlocal.NewStore(dir); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func landingLock(dir string) *flock.Flock { return flock.New(filepath.Join(dir, lockName)) }

// removeLanding removes a landing that nobody holds.
func removeLanding(dir string) {
	lock := landingLock(dir)
	if free, err := lock.TryLock(); err == nil && free {
		_ = os.RemoveAll(dir) // the next one tries again
		_ = lock.Unlock()
	}
}

func (l *landing) close() error { return errors.Join(os.RemoveAll(l.dir), l.lock.Unlock()) }

// Writer refuses what is there already, and takes by a link what the image store has.
func (l *landing) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if d := o.Desc; d.Digest != "" && l.link(d) {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, errdefs.ErrAlreadyExists)
	}
	return l.Store.Writer(ctx, opts...)
}

func (l *landing) link(d ocispecs.Descriptor) bool {
	h, err := v1.NewHash(d.Digest.String())
	if err != nil {
		return false
	}
	from, to := l.store.BlobPath(h), l.path(d.Digest)
	info, err := os.Stat(from)
	if err != nil || info.Size() != d.Size {
		return false
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return false
	}
	err = os.Link(from, to)
	return err == nil || errors.Is(err, os.ErrExist)
}

// path is where a blob is; d is a valid digest.
func (l *landing) path(d digest.Digest) string {
	return filepath.Join(l.dir, ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// read reads a manifest that has landed.
func (l *landing) read(ctx context.Context, d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return readBlob(ctx, l, d)
}

// add keeps a document that was made here.
func (l *landing) add(ctx context.Context, d ocispecs.Descriptor, raw []byte) error {
	err := content.WriteBlob(ctx, l.Store, d.Digest.String(), bytes.NewReader(raw), d)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil
	}
	return err
}

// source is what has landed below root, as the image store and registries take it.
func (l *landing) source(root ocispecs.Descriptor) (Source, error) {
	h, err := v1.NewHash(root.Digest.String())
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return landed{l, v1.Descriptor{MediaType: types.MediaType(root.MediaType), Digest: h, Size: root.Size}}, nil
}

// landed is a [Source].
type landed struct {
	*landing
	root v1.Descriptor
}

func (s landed) Descriptor() v1.Descriptor { return s.root }

func (s landed) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	path, ok := s.Path(d)
	if !ok {
		return nil, fmt.Errorf("blob %s has not come from a node", d.Digest)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s landed) Path(d v1.Descriptor) (string, bool) {
	parsed, err := digest.Parse(d.Digest.String())
	if err != nil {
		return "", false
	}
	path := s.path(parsed)
	return path, exists(path)
}
