//go:build linux

package handover

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	cfs "github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// A delta is the folder of what makes a snapshot out of its parent: the layer, uncompressed, and what a layer has no
// room for. It is made under another name, and complete where it has its own.
const (
	layerName = "layer.tar"
	restName  = "rest.json"
)

// writeDelta writes the changes of the folder at root as a delta into dir.
func writeDelta(ctx context.Context, dir, root string, now []entry, list []change) (size, files int64, err error) {
	layer, err := os.OpenFile(filepath.Join(dir, layerName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, layer.Close()) }()
	more, err := os.OpenFile(filepath.Join(dir, restName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, more.Close()) }()
	layerBuf, moreBuf := bufio.NewWriterSize(layer, 256<<10), bufio.NewWriter(more)
	w := newLayerWriter(layerBuf, root, now)
	w.rest = json.NewEncoder(moreBuf)
	err = w.write(ctx, list)
	return w.size, w.num, errors.Join(err, layerBuf.Flush(), moreBuf.Flush())
}

// applyDelta makes the folder at root, which is that of the parent, the snapshot's.
func (s *Snapshots) applyDelta(ctx context.Context, root, delta string) error {
	f, err := os.Open(filepath.Join(delta, layerName))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if err := s.unpack(ctx, root, bufio.NewReaderSize(f, 256<<10)); err != nil {
		return err
	}
	return applyRest(root, filepath.Join(delta, restName), func(string) bool { return true })
}

// applyRest gives the files that are asked for what the layer could not tell. The lines were written by writeDelta for
// these very files.
func applyRest(root, path string, ask func(path string) bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the layer came from elsewhere, and is all there is
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	for lines := json.NewDecoder(bufio.NewReader(f)); ; {
		var r rest
		switch err := lines.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if !ask(string(r.Path)) {
			continue
		}
		name := filepath.Join(root, string(r.Path))
		for key, value := range r.Xattrs {
			if err := sysx.LSetxattr(name, key, value, 0); err != nil {
				return pathError("setxattr", name, err)
			}
		}
		t := unix.NsecToTimespec(r.Mtime)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return pathError("utimensat", name, err)
		}
	}
}

// differing says which of the files have another content than they had in a chain of snapshots, whose deltas come
// newest first. A file that is in none of them as itself counts as another one: a layer that has it is right.
func differing(deltas []string, root string, files []*entry) (map[string]bool, error) {
	c := &comparison{root: root, dirs: map[string]string{}, differs: make(map[string]bool, len(files))}
	wanted := make(map[string][]*entry, len(files))
	for _, e := range files {
		c.differs[e.path] = true
		wanted[e.path] = []*entry{e}
	}
	for _, delta := range deltas {
		names := wanted
		for pass := 0; len(names) > 0 && pass < maxPasses; pass++ {
			again, err := c.layer(filepath.Join(delta, layerName), names)
			if err != nil {
				return nil, err
			}
			names = again
		}
	}
	return c.differs, nil
}

// maxPasses bounds how often a layer is read for hard links to hard links: one from elsewhere may have a circle of them.
const maxPasses = 16

// comparison compares files of a folder with those of layers.
type comparison struct {
	root    string
	dirs    map[string]string // a folder's name in a layer, to where its symlinks lead
	differs map[string]bool
}

// layer compares the wanted files with those of that name in a layer, which are then not wanted any more. What has to
// be looked for once more is returned: by the name that a hard link leads to, and what else has a name that was read.
func (c *comparison) layer(path string, wanted map[string][]*entry) (again map[string][]*entry, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	again, found := map[string][]*entry{}, map[string]bool{}
	for layer := tar.NewReader(f); ; {
		h, err := layer.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := c.resolve(h.Name)
		files := wanted[name]
		if len(files) == 0 {
			continue
		}
		found[name] = true
		if h.Typeflag == tar.TypeLink {
			target := c.resolve(h.Linkname)
			again[target] = append(again[target], files...)
			continue
		}
		equal, err := equalToEntry(c.root, files[0], h, layer)
		if err != nil {
			return nil, err
		}
		for _, e := range files {
			switch {
			case e.ino == files[0].ino:
				c.differs[e.path] = !equal
			default:
				again[name] = append(again[name], e)
			}
		}
	}
	for name := range found {
		delete(wanted, name)
	}
	return again, nil
}

// resolve is where a layer's name leads in the folder.
func (c *comparison) resolve(name string) string {
	dir, base := path.Split(cleanName(name))
	if dir == "" {
		return base
	}
	real, ok := c.dirs[dir]
	if !ok {
		if abs, err := cfs.RootPath(c.root, dir); err == nil {
			real = strings.TrimPrefix(strings.TrimPrefix(abs, c.root), "/")
		}
		c.dirs[dir] = real
	}
	return path.Join(real, base)
}

// equalToEntry compares what a layer has of a file with it. Its description was found equal before.
func equalToEntry(root string, e *entry, h *tar.Header, content io.Reader) (bool, error) {
	name := filepath.Join(root, e.path)
	switch e.kind() {
	case unix.S_IFLNK:
		target, err := os.Readlink(name)
		return h.Typeflag == tar.TypeSymlink && target == h.Linkname, err
	case unix.S_IFREG:
		if h.Typeflag != tar.TypeReg || h.Size != e.size {
			return false, nil
		}
	default:
		return h.Typeflag != tar.TypeReg, nil
	}
	if capability, err := capabilityOf(root, e); err != nil || capability != h.PAXRecords[paxXattr+capabilityKey] {
		return false, err
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read
	return equalContents(f, content)
}

func equalContents(a, b io.Reader) (bool, error) {
	var x, y [64 << 10]byte
	for {
		n, errA := io.ReadFull(a, x[:])
		m, errB := io.ReadFull(b, y[:])
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		endA, endB := isEnd(errA), isEnd(errB)
		switch {
		case errA != nil && !endA:
			return false, errA
		case errB != nil && !endB:
			return false, errB
		case endA || endB:
			return endA && endB, nil
		}
	}
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// eachHeader calls do with the headers of the layer at path.
func eachHeader(path string, do func(*tar.Header)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	for layer := tar.NewReader(f); ; {
		h, err := layer.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		do(h)
	}
}

// boundTimes copies a layer whose files are no younger than t.
func boundTimes(w io.Writer, r io.Reader, t time.Time) error {
	from, to := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil {
			return err
		}
		if h.ModTime.After(t) {
			h.ModTime = t.Truncate(time.Second)
		}
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil { //nolint:gosec // a layer that we have whole on the disk
			return err
		}
	}
}
