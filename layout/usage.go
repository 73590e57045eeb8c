package layout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Usage is what the images of a store take on the disk.
type Usage struct {
	Bytes int64 // all blobs, also those that nothing needs any more, and unfinished transfers
	Own   int64 // of these, what goes free with them: nothing where somebody else has a hard link
}

// Usage adds up the files that hold images. linked is told of those that have
// other names elsewhere, as the blobs that a build shares with the store.
func (s *Store) Usage(ctx context.Context, linked func(fs.FileInfo)) (Usage, error) {
	var u Usage
	for _, dir := range []string{filepath.Join(blobsDir, "sha256"), filepath.Join(blobsDir, "sha512"), ingestDir} {
		files, err := os.ReadDir(s.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return u, err
		}
		infos := make([]fs.FileInfo, len(files))
		err = each(ctx, len(files), func(_ context.Context, i int) error {
			if fi, err := files[i].Info(); err == nil && fi.Mode().IsRegular() { // else it is gone by now, or none of ours
				infos[i] = fi
			}
			return nil
		})
		if err != nil {
			return u, err
		}
		for _, fi := range infos {
			if fi == nil {
				continue
			}
			u.Bytes += fi.Size()
			own := ownBytes(fi)
			u.Own += own
			if own < fi.Size() {
				linked(fi)
			}
		}
	}
	return u, nil
}

// SharedSizes tells of each of these images, by its digest, how many bytes of what
// [Image.Size] counts belong to another one of them too.
func (s *Store) SharedSizes(ctx context.Context, all []*Image) (map[v1.Hash]int64, error) {
	seen := make(map[v1.Hash]bool, len(all))
	var roots []v1.Descriptor
	for _, img := range all {
		if !seen[img.desc.Digest] {
			seen[img.desc.Digest] = true
			roots = append(roots, img.desc)
		}
	}
	held := make([][]v1.Descriptor, len(roots))
	err := each(ctx, len(roots), func(ctx context.Context, i int) error {
		held[i], _, _ = s.holdings(ctx, roots[i]) // what can't be read shares nothing
		return nil
	})
	images := map[v1.Hash]int{}
	for _, blobs := range held {
		for _, d := range blobs {
			images[d.Digest]++
		}
	}
	shared := make(map[v1.Hash]int64, len(roots))
	for i, blobs := range held {
		for _, d := range blobs {
			if images[d.Digest] > 1 {
				shared[roots[i].Digest] += d.Size
			}
		}
	}
	return shared, err
}
