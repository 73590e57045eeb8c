//go:build linux

package handover

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"

	capabilityKey = "security.capability"
	paxXattr      = "SCHILY.xattr."
)

// layerWriter writes changes of a folder as a layer. Its headers and their order are those of containerd's
// archive.ChangeWriter, which BuildKit's differ of overlayfs writes with; that one can't be told of owners that are
// kept aside.
type layerWriter struct {
	tar     *tar.Writer
	root    string
	folders map[string]*entry
	written map[string]bool   // folders
	links   map[uint64]string // the name that stands for an inode

	rest *json.Encoder // told of what a layer has no room for, nil: nobody wants it
	size int64         // of the files' contents
	num  int64         // of the files
}

// rest is what a step sees of a file, and a layer does not tell.
type rest struct {
	Path   []byte            `json:"p"` // not a string: names need not be UTF-8
	Mtime  int64             `json:"t"`
	Xattrs map[string][]byte `json:"x,omitempty"`
}

func newLayerWriter(w io.Writer, root string, now []entry) *layerWriter {
	lw := &layerWriter{
		tar: tar.NewWriter(w), root: root,
		folders: map[string]*entry{}, written: map[string]bool{}, links: map[uint64]string{},
	}
	for i := range now {
		if e := &now[i]; e.isDir() {
			lw.folders[e.path] = e
		}
	}
	return lw
}

func (w *layerWriter) write(ctx context.Context, list []change) error {
	for _, c := range list {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var err error
		if c.now == nil {
			err = w.whiteout(c.path)
		} else {
			err = w.file(c.now)
		}
		if err != nil {
			return fmt.Errorf("write %q into a layer: %w", c.path, err)
		}
	}
	return w.tar.Close()
}

func (w *layerWriter) whiteout(name string) error {
	if err := w.parents(name); err != nil {
		return err
	}
	epoch := time.Unix(0, 0).UTC()
	return w.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     path.Join(path.Dir(name), whiteoutPrefix+path.Base(name)),
		ModTime:  epoch, AccessTime: epoch, ChangeTime: epoch,
	})
}

// parents writes the folders above a name that were not written yet, the topmost first.
func (w *layerWriter) parents(name string) error {
	parent := path.Dir(name)
	if parent == "." || w.written[parent] {
		return nil
	}
	e := w.folders[parent]
	if e == nil {
		return fmt.Errorf("its folder %q is not there", parent)
	}
	return w.file(e)
}

func (w *layerWriter) file(e *entry) error {
	h, err := w.header(e)
	if err != nil || h == nil {
		return err
	}
	if err := w.parents(e.path); err != nil {
		return err
	}
	if e.isDir() {
		w.written[e.path] = true
	}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	w.num++
	if h.Typeflag == tar.TypeReg && h.Size > 0 {
		w.size += h.Size
		if err := w.content(e); err != nil {
			return err
		}
	}
	return w.tellRest(e)
}

// header returns nil for a file that layers don't have.
func (w *layerWriter) header(e *entry) (*tar.Header, error) {
	h := &tar.Header{
		Name: e.path, Mode: int64(e.mode & 0o7777), Uid: int(e.uid), Gid: int(e.gid),
		ModTime: time.Unix(0, e.mtime).Truncate(time.Second), Format: tar.FormatPAX,
	}
	switch e.kind() {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, e.path+"/"
	case unix.S_IFLNK:
		target, err := os.Readlink(filepath.Join(w.root, e.path))
		if err != nil {
			return nil, err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if e.kind() == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(e.rdev)), int64(unix.Minor(e.rdev))
	default:
		return nil, nil // a socket
	}
	if e.linked() {
		if first, ok := w.links[e.ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			w.links[e.ino] = h.Name
		}
	}
	capability, err := capabilityOf(w.root, e)
	if capability != "" {
		h.PAXRecords = map[string]string{paxXattr + capabilityKey: capability}
	}
	return h, err
}

// capabilityOf is a file's security.capability.
func capabilityOf(root string, e *entry) (string, error) {
	if e.capability != "" {
		return e.capability, nil
	}
	name := filepath.Join(root, e.path)
	b, err := sysx.LGetxattr(name, capabilityKey)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	return string(b), pathError("getxattr", name, err)
}

func (w *layerWriter) content(e *entry) error {
	f, err := os.Open(filepath.Join(w.root, e.path))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	n, err := io.Copy(w.tar, io.LimitReader(f, e.size))
	if err == nil && n != e.size {
		err = fmt.Errorf("it has shrunk from %d to %d bytes: %w", e.size, n, io.ErrUnexpectedEOF)
	}
	return err
}

func (w *layerWriter) tellRest(e *entry) error {
	if w.rest == nil {
		return nil
	}
	r := rest{Path: []byte(e.path), Mtime: e.mtime}
	name := filepath.Join(w.root, e.path)
	keys, err := sysx.LListxattr(name)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return pathError("listxattr", name, err)
	}
	for _, key := range keys {
		if key == capabilityKey || key == noteKey || inherited(key) {
			continue
		}
		value, err := sysx.LGetxattr(name, key)
		if err != nil {
			return pathError("getxattr", name, err)
		}
		if r.Xattrs == nil {
			r.Xattrs = map[string][]byte{}
		}
		r.Xattrs[key] = value
	}
	if r.Xattrs == nil && e.mtime >= 0 && e.mtime%int64(time.Second) == 0 { // a layer has no dates before 1970
		return nil
	}
	return w.rest.Encode(r)
}

// cleanName is the path that a tar's name stands for, as entries have it.
func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
