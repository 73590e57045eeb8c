//go:build linux

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxLayoutIndex bounds the index.json of a layout that is a build context, in bytes.
const maxLayoutIndex = 64 << 20

// openOCILayout opens FOLDER[:TAG|@DIGEST] and finds what it names.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md
func openOCILayout(ref string) (content.Store, digest.Digest, error) {
	dir, pinned, isPinned := strings.Cut(ref, "@")
	if isPinned {
		d, err := digest.Parse(pinned)
		return layoutContent{dir: dir}, d, err
	}
	tag := ""
	if i := strings.LastIndexByte(dir, ':'); i > strings.LastIndexByte(dir, '/') {
		dir, tag = dir[:i], dir[i+1:]
	}
	d, err := findInLayout(dir, tag)
	return layoutContent{dir: dir}, d, err
}

// findInLayout returns the digest of the entry called tag; without a tag that of the
// only entry, or of latest.
func findInLayout(dir, tag string) (digest.Digest, error) {
	f, err := os.Open(filepath.Join(dir, ocispecs.ImageIndexFile))
	if err != nil {
		return "", fmt.Errorf("%q is no OCI image layout: %w", dir, cause(err))
	}
	defer f.Close()
	var index ocispecs.Index
	if err := json.NewDecoder(io.LimitReader(f, maxLayoutIndex)).Decode(&index); err != nil {
		return "", fmt.Errorf("%q is no OCI image layout: %w", dir, err)
	}
	if tag == "" && len(index.Manifests) == 1 {
		return index.Manifests[0].Digest, index.Manifests[0].Digest.Validate()
	}
	if tag == "" {
		tag = "latest"
	}
	for _, m := range index.Manifests {
		for _, key := range []string{ocispecs.AnnotationRefName, "io.containerd.image.name"} {
			if name := m.Annotations[key]; name == tag || strings.HasSuffix(name, ":"+tag) {
				return m.Digest, m.Digest.Validate()
			}
		}
	}
	return "", fmt.Errorf("the layout %q has no image %q", dir, tag)
}

// layoutContent is the part of a content store that a build reads a layout by. The
// folder is only read, so that it may be anybody's.
type layoutContent struct {
	content.Store // nil: BuildKit calls nothing else
	dir           string
}

func (c layoutContent) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	f, err := c.open(d)
	if err != nil {
		return content.Info{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: d, Size: info.Size(), CreatedAt: info.ModTime(), UpdatedAt: info.ModTime()}, nil
}

func (c layoutContent) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	f, err := c.open(d.Digest)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return layoutBlob{f, info.Size()}, nil
}

func (c layoutContent) open(d digest.Digest) (*os.File, error) {
	if err := d.Validate(); err != nil { // or it could lead out of the folder
		return nil, err
	}
	f, err := os.Open(filepath.Join(c.dir, ocispecs.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", d, errdefs.ErrNotFound)
	}
	return f, err
}

type layoutBlob struct {
	*os.File
	size int64
}

func (b layoutBlob) Size() int64 { return b.size }
