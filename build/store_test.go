//go:build linux

package build_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/build"
)

// folderStore is the least that satisfies build.Store: blobs in a folder, names in a map.
type folderStore struct {
	dir   string
	mu    sync.Mutex
	names map[string]v1.Descriptor
}

func newFolderStore(dir string) (*folderStore, error) {
	return &folderStore{dir: dir, names: map[string]v1.Descriptor{}}, os.MkdirAll(dir, 0o755)
}

func (s *folderStore) BlobPath(h v1.Hash) string { return filepath.Join(s.dir, h.Hex) }

func (s *folderStore) Lookup(_ context.Context, name reference.Named, _ v1.Platform) (v1.Descriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for known, d := range s.names {
		if pinned, ok := name.(reference.Digested); ok && pinned.Digest().String() == d.Digest.String() || known == name.String() {
			return d, nil
		}
	}
	return v1.Descriptor{}, errors.New("not found")
}

func (s *folderStore) Adopt(ctx context.Context, src build.Source, names []string) (v1.Descriptor, error) {
	root := src.Descriptor()
	if err := s.take(ctx, src, root); err != nil {
		return root, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		s.names[n] = root
	}
	return root, nil
}

func (s *folderStore) take(ctx context.Context, src build.Source, d v1.Descriptor) error {
	from, ok := src.Path(d)
	if !ok {
		return errors.New("a blob of the result is missing: " + d.Digest.String())
	}
	if err := os.Link(from, s.BlobPath(d.Digest)); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
		return nil
	}
	data, err := readAll(ctx, src, d)
	if err != nil {
		return err
	}
	var m struct {
		Config            *v1.Descriptor
		Layers, Manifests []v1.Descriptor
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, c := range slices.Concat(m.Layers, m.Manifests) {
		if err := s.take(ctx, src, c); err != nil {
			return err
		}
	}
	return nil
}

func readAll(ctx context.Context, src build.Source, d v1.Descriptor) ([]byte, error) {
	r, err := src.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, d.Size))
}

// links is the number of names a file has.
func links(info os.FileInfo) uint64 {
	return uint64(info.Sys().(*syscall.Stat_t).Nlink) //nolint:unconvert // 32 bits on arm64
}
