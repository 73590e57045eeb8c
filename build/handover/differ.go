//go:build linux

package handover

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Differ writes the difference of two snapshots as a layer. That of a committed snapshot to its parent is there
// already; for any other two their folders are compared. The layer is gzipped where nothing else is asked for.
func (s *Snapshots) Differ(store content.Store) diff.Comparer { return &differ{s, store} }

type differ struct {
	snapshots *Snapshots
	store     content.Store
}

func (d *differ) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispecs.Descriptor, error) {
	var config diff.Config
	for _, o := range opts {
		if err := o(&config); err != nil {
			return ocispecs.Descriptor{}, err
		}
	}
	if config.SourceDateEpoch == nil {
		config.SourceDateEpoch = epoch.FromContext(ctx)
	}
	if err := chooseCompressor(&config); err != nil {
		return ocispecs.Descriptor{}, err
	}
	if config.Reference == "" {
		config.Reference = fmt.Sprintf("handover-%d", time.Now().UnixNano())
	}
	write := func(w io.Writer) error { return d.snapshots.writeDiff(ctx, w, lower, upper) }
	if t := config.SourceDateEpoch; t != nil {
		write = bounded(write, *t)
	}
	dgst, err := d.ingest(ctx, config, write)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	info, err := d.store.Info(ctx, dgst)
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("look at the layer %s: %w", dgst, err)
	}
	return ocispecs.Descriptor{MediaType: config.MediaType, Size: info.Size, Digest: dgst}, nil
}

// chooseCompressor completes what the caller has left open.
func chooseCompressor(c *diff.Config) error {
	if c.Compressor != nil {
		if c.MediaType == "" {
			return fmt.Errorf("write a layer: a compressor comes without a media type: %w", errdefs.ErrInvalidArgument)
		}
		return nil
	}
	if c.MediaType == "" {
		c.MediaType = ocispecs.MediaTypeImageLayerGzip
	}
	kinds := map[string]compression.Compression{
		ocispecs.MediaTypeImageLayer:     compression.Uncompressed,
		ocispecs.MediaTypeImageLayerGzip: compression.Gzip,
		ocispecs.MediaTypeImageLayerZstd: compression.Zstd,
	}
	kind, ok := kinds[c.MediaType]
	if !ok {
		return fmt.Errorf("write a layer of the type %q: %w", c.MediaType, errdefs.ErrNotImplemented)
	}
	c.Compressor = func(w io.Writer, _ string) (io.WriteCloser, error) { return compression.CompressStream(w, kind) }
	return nil
}

// bounded has no file of a layer be younger than t.
func bounded(write func(io.Writer) error, t time.Time) func(io.Writer) error {
	return func(w io.Writer) error {
		r, pw := io.Pipe()
		go func() { pw.CloseWithError(write(pw)) }()
		err := boundTimes(w, r, t)
		return errors.Join(err, r.CloseWithError(err))
	}
}

// ingest writes a layer into the store, labelled with the digest that it has uncompressed.
func (d *differ) ingest(ctx context.Context, c diff.Config, write func(io.Writer) error) (_ digest.Digest, err error) {
	cw, err := content.OpenWriter(ctx, d.store, content.WithRef(c.Reference),
		content.WithDescriptor(ocispecs.Descriptor{MediaType: c.MediaType}))
	if err != nil {
		return "", fmt.Errorf("write a layer: %w", err)
	}
	defer func() { err = errors.Join(err, cw.Close()) }()
	if err := cw.Truncate(0); err != nil { // what an earlier, broken attempt has left under this reference
		return "", err
	}
	diffID, err := compressed(cw, c, write)
	if err != nil {
		return "", fmt.Errorf("write a layer: %w", err)
	}
	own := map[string]string{labels.LabelUncompressed: diffID.String()}
	for key, value := range c.Labels {
		own[key] = value
	}
	dgst := cw.Digest()
	err = cw.Commit(ctx, 0, dgst, content.WithLabels(own))
	if errdefs.IsAlreadyExists(err) {
		_, err = d.store.Update(ctx, content.Info{Digest: dgst, Labels: own}, "labels."+labels.LabelUncompressed)
	}
	return dgst, err
}

// compressed writes a layer through the compressor, and returns its digest before that.
func compressed(cw io.Writer, c diff.Config, write func(io.Writer) error) (_ digest.Digest, err error) {
	buf := bufio.NewWriterSize(cw, 128<<10)
	z, err := c.Compressor(buf, c.MediaType)
	if err != nil {
		return "", err
	}
	digester := digest.Canonical.Digester()
	err = write(io.MultiWriter(z, digester.Hash()))
	if err = errors.Join(err, z.Close()); err != nil {
		return "", err
	}
	return digester.Digest(), buf.Flush()
}

// writeDiff writes the uncompressed layer that makes upper out of lower; of no mounts at all it is the empty folder.
func (s *Snapshots) writeDiff(ctx context.Context, w io.Writer, lower, upper []mount.Mount) error {
	var lowerID, upperID string
	var err error
	if len(lower) > 0 {
		if lowerID, _, err = s.locate(lower); err != nil {
			return err
		}
	}
	if len(upper) > 0 {
		if upperID, _, err = s.locate(upper); err != nil {
			return err
		}
	}
	if upperID != "" && s.isDelta(lowerID, upperID) {
		return copyFile(w, filepath.Join(s.deltaOf(upperID), layerName))
	}
	return s.compareFolders(ctx, w, lowerID, upperID)
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	_, err = io.Copy(w, bufio.NewReaderSize(f, 256<<10))
	return err
}

// compareFolders writes what is different in the folders of two snapshots; "" is the empty folder.
func (s *Snapshots) compareFolders(ctx context.Context, w io.Writer, lower, upper string) error {
	var now []entry
	if upper != "" {
		release, err := s.hold(ctx, upper)
		if err != nil {
			return err
		}
		defer release()
		if now, err = scan(s.rootOf(upper), s.notes); err != nil {
			return err
		}
	}
	list, err := s.changesByFolder(ctx, lower, upper, now)
	if err != nil {
		return err
	}
	return newLayerWriter(w, s.rootOf(upper), now).write(ctx, list)
}

// judgeCopies compares files of two folders, whose inodes say nothing.
func judgeCopies(was, is *entry) verdict {
	a, b := *was, *is
	a.ino, a.nlink, a.ctime = b.ino, b.nlink, b.ctime
	if v := judge(&a, &b); v != same || is.isDir() {
		return v
	}
	return doubtful
}

// differingFolders says which files have another content in one folder than in another.
func differingFolders(lower, upper string, was []entry, files []*entry) (map[string]bool, error) {
	old := make(map[string]*entry, len(was))
	for i := range was {
		old[was[i].path] = &was[i]
	}
	result := make(map[string]bool, len(files))
	for _, e := range files {
		equal, err := equalFiles(lower, upper, old[e.path], e)
		if err != nil {
			return nil, err
		}
		result[e.path] = !equal
	}
	return result, nil
}

func equalFiles(lower, upper string, was, is *entry) (bool, error) {
	a, b := filepath.Join(lower, was.path), filepath.Join(upper, is.path)
	if is.isSymlink() {
		x, err := os.Readlink(a)
		if err != nil {
			return false, err
		}
		y, err := os.Readlink(b)
		return x == y, err
	}
	if !is.isRegular() {
		return true, nil
	}
	x, err := capabilityOf(lower, was)
	if err != nil {
		return false, err
	}
	if y, err := capabilityOf(upper, is); err != nil || x != y {
		return false, err
	}
	return equalPaths(a, b)
}

func equalPaths(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer func() { _ = x.Close() }() // only read
	y, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer func() { _ = y.Close() }() // only read
	return equalContents(x, y)
}
