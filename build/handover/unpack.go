//go:build linux

package handover

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// Unpack unpacks a tar into the folder at root, which is one of a snapshot or in one, as ADD of an archive does: what
// looks like a whiteout is a file. Owners are the archive's, unless change says otherwise: it is called with each
// header (nil: with none) before anything is made of it, may change it, and may have it left out. Names, links and
// symlinks never lead out of root.
func (s *Snapshots) Unpack(ctx context.Context, root string, tarball io.Reader, change func(*tar.Header) (bool, error)) error {
	plain := archive.WithConvertWhiteout(func(*tar.Header, string) (bool, error) { return true, nil })
	return s.unpackWith(ctx, root, tarball, change, plain)
}

// unpack applies a layer to the folder at root.
func (s *Snapshots) unpack(ctx context.Context, root string, layer io.Reader) error {
	return s.unpackWith(ctx, root, layer, nil)
}

func (s *Snapshots) unpackWith(ctx context.Context, root string, tarball io.Reader, change func(*tar.Header) (bool, error), opts ...archive.ApplyOpt) error {
	u := &unpacker{root: root, notes: s.notes, noDevices: s.noDevices, change: change}
	opts = append(opts, archive.WithFilter(u.next))
	if s.notes != nil {
		opts = append(opts, archive.WithNoSameOwner())
	}
	if _, err := archive.Apply(ctx, root, tarball, opts...); err != nil {
		return err
	}
	return u.flush()
}

// unpacker stands between a tar and what is made of it. With owners kept aside an entry's note is written as soon as
// the entry is there, which is when the next one comes.
type unpacker struct {
	root      string
	notes     *notes
	noDevices bool
	change    func(*tar.Header) (bool, error)
	pending   *pendingNote
}

type pendingNote struct {
	name string
	note note
}

func (u *unpacker) next(h *tar.Header) (bool, error) {
	if err := u.flush(); err != nil {
		return false, err
	}
	if u.change != nil {
		if keep, err := u.change(h); err != nil || !keep {
			return false, err
		}
	}
	if isDevice := h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock; isDevice && u.noDevices {
		return false, nil // as containerd does in a user namespace
	}
	if u.notes != nil {
		return true, u.putAside(h)
	}
	return true, nil
}

// putAside notes what the entry's file can't be given, and takes it out of the header.
func (u *unpacker) putAside(h *tar.Header) error {
	noted := note{UID: h.Uid, GID: h.Gid, Mode: uint32(h.Mode & 0o7777)}
	kind := uint32(unix.S_IFREG)
	switch h.Typeflag {
	case tar.TypeLink, tar.TypeXGlobalHeader:
		return nil // the file that it is another name of has its note
	case tar.TypeDir:
		kind = unix.S_IFDIR
	case tar.TypeChar, tar.TypeBlock:
		noted.Device = unix.S_IFCHR
		if h.Typeflag == tar.TypeBlock {
			noted.Device = unix.S_IFBLK
		}
		if h.Devmajor != int64(uint32(h.Devmajor)) || h.Devminor != int64(uint32(h.Devminor)) {
			return fmt.Errorf("%q has the device number %d:%d, which there can't be", h.Name, h.Devmajor, h.Devminor)
		}
		noted.Rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		h.Typeflag = tar.TypeReg
	}
	if strings.HasPrefix(filepath.Base(h.Name), whiteoutPrefix) && u.change == nil && h.Typeflag == tar.TypeReg {
		return nil
	}
	h.PAXRecords = maps.Clone(h.PAXRecords)
	if capability, ok := h.PAXRecords[paxXattr+capabilityKey]; ok && !u.notes.modesKept {
		noted.Capability = []byte(capability)
	}
	for key := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, paxXattr); ok && (!strings.HasPrefix(name, "user.") || name == noteKey) {
			if name == capabilityKey && u.notes.modesKept {
				continue
			}
			delete(h.PAXRecords, key) // only the system's administrator may set it, or it is ours
		}
	}
	h.Mode = int64(u.notes.aside(noted.Mode | kind))
	if kind == unix.S_IFDIR || !noted.plain() || h.Typeflag != tar.TypeSymlink && noted.Mode != u.notes.aside(noted.Mode) {
		u.pending = &pendingNote{h.Name, noted}
	}
	return nil
}

// flush writes the note of the entry that was made last.
func (u *unpacker) flush() error {
	p := u.pending
	if p == nil {
		return nil
	}
	u.pending = nil
	dir, base := filepath.Split(p.name)
	dir, err := cfs.RootPath(u.root, dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, filepath.Join("/", base))
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the archive's entry for its root
		}
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if path == u.root {
		return nil
	}
	if p.note.plain() && p.note.Mode == st.Mode&0o7777 {
		if old, err := u.notes.of(path, st.Mode); err != nil || old == nil {
			return err // a folder that needs no note, and was not there with one
		}
	}
	if err := u.notes.write(path, p.note); err != nil {
		return fmt.Errorf("note the owner of %q: %w", p.name, err)
	}
	return nil
}
