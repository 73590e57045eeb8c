//go:build linux

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/gc"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// sharedContent stands above containerd's metadata store and hands it, as files
// already written, the blobs that the image store has. It does not stand below:
// there a blob's expected size is unknown, and a torn file of the store would be
// taken for the blob for good.
type sharedContent struct {
	content.Store        // containerd's metadata store
	dir           string // the engine's own content folder
	images        Store

	// A link exists before the metadata knows of it: collections have to wait.
	collecting sync.RWMutex
}

// Writer links the blob in first, if the image store has it at the expected size;
// the metadata store then finds it complete and records it.
func (s *sharedContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	s.collecting.RLock()
	defer s.collecting.RUnlock()
	if o.Desc.Digest != "" && o.Desc.Size > 0 {
		if err := s.adopt(o.Desc.Digest, o.Desc.Size); err != nil {
			return nil, err
		}
	}
	return s.Store.Writer(ctx, opts...)
}

func (s *sharedContent) adopt(d digest.Digest, size int64) error {
	h, err := v1.NewHash(d.String())
	if err != nil {
		return nil //nolint:nilerr // a digest the image store can't have
	}
	from := s.images.BlobPath(h)
	info, err := os.Stat(from)
	if err != nil || info.Size() != size {
		return nil //nolint:nilerr // not there, or not whole: it comes from elsewhere
	}
	return shareFile(from, s.blobPath(d), size)
}

func (s *sharedContent) blobPath(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// withCollectionLock keeps f, the metadata's collector, away from links that are
// being made.
func (s *sharedContent) withCollectionLock(f func(context.Context) (gc.Stats, error)) func(context.Context) (gc.Stats, error) {
	return func(ctx context.Context) (gc.Stats, error) {
		s.collecting.Lock()
		defer s.collecting.Unlock()
		return f(ctx)
	}
}

// shareFile makes to the same file as from: by hard link, else (two mounts, a
// link limit, protected_hardlinks) by reflink, else by copy. A file of another
// size that stands at to is a torn one and is replaced.
func shareFile(from, to string, size int64) error {
	if info, err := os.Stat(to); err == nil && info.Size() == size {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Dir(to)), "share-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what is left there is nobody's
	link := filepath.Join(tmp, "blob")
	if err := os.Link(from, link); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := cloneFile(from, link); err != nil {
			return err
		}
	}
	return os.Rename(link, to)
}

func cloneFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	if _, err := out.ReadFrom(in); err != nil { // copy_file_range
		return err
	}
	return out.Sync()
}
