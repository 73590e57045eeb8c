//go:build linux

package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// NotedAt says whose an open file is where owners are kept aside: what is noted, else root. The descriptor may be one
// of O_PATH, and of a file that is in no snapshot's folder.
func (s *Snapshots) NotedAt(fd int) (uid, gid uint32, err error) {
	noted, err := s.noteAt(fd)
	if err != nil || noted == nil {
		return 0, 0, err
	}
	return uint32(noted.UID), uint32(noted.GID), nil
}

// Attribute is the extended attribute that notes are kept in where owners are kept aside.
func (s *Snapshots) Attribute() string { return noteKey }

// Restore makes st, which is that of the file at path in a folder of a snapshot, what it would be were owners, modes,
// devices and capabilities not kept aside, and takes the note out of it.
func (s *Snapshots) Restore(path string, st *types.Stat) error {
	if s.notes == nil {
		return nil
	}
	e, err := s.lstat(path)
	if err != nil {
		return err
	}
	st.Uid, st.Gid = e.uid, e.gid
	kind := fs.FileMode(st.Mode).Type()
	switch e.kind() {
	case unix.S_IFCHR:
		kind = fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		kind = fs.ModeDevice
	}
	st.Mode = uint32(kind | FileMode(e.mode))
	st.Devmajor, st.Devminor = int64(unix.Major(e.rdev)), int64(unix.Minor(e.rdev))
	delete(st.Xattrs, noteKey)
	if e.capability != "" {
		if st.Xattrs == nil {
			st.Xattrs = map[string][]byte{}
		}
		st.Xattrs[capabilityKey] = []byte(e.capability)
	}
	return nil
}

// keep is the id by which chown leaves a file's own.
const keep = ^uint32(0)

// NoteAt notes a new owner of an open file, where owners are kept aside and modes are not (Options.ModesKept). As with
// chown the id -1 leaves what is. The descriptor may be one of O_PATH; what can't be done through it to the file itself, since its mount is read-only,
// fails as the kernel's chown would. Of a file on another file system nothing is noted if it takes no attribute.
//
// As chown does, it takes setuid, setgid and capabilities away from a regular file.
func (s *Snapshots) NoteAt(fd int, uid, gid uint32) error {
	if s.notes == nil || !s.notes.modesKept {
		return fmt.Errorf("note an owner: modes are aside, too: %w", errors.ErrUnsupported)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	noted := note{AnyUID: true, AnyGID: true}
	old, err := s.noteAt(fd)
	if err != nil {
		return err
	}
	if old != nil {
		noted = *old
	}
	if uid != keep {
		noted.UID, noted.AnyUID = int(uid), false
	}
	if gid != keep {
		noted.GID, noted.AnyGID = int(gid), false
	}
	noted.Mode = afterChown(st.Mode)
	name := descriptor(fd)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if err := lessPrivileged(name, st.Mode); err != nil {
			return err
		}
		noted.Capability = nil
	case unix.S_IFDIR:
	default:
		return s.tableAt(fd, &st, noted)
	}
	b, err := json.Marshal(noted)
	if err != nil {
		return err
	}
	if err := unix.Setxattr(name, noteKey, b, 0); !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return s.tableAt(fd, &st, noted)
}

// descriptor names the file behind a descriptor, also one of O_PATH, for calls that take a path.
func descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// afterChown is a file's mode as chown leaves it.
func afterChown(mode uint32) uint32 {
	bits := mode & 0o7777
	if mode&unix.S_IFMT != unix.S_IFREG {
		return bits
	}
	bits &^= unix.S_ISUID
	if bits&unix.S_IXGRP != 0 {
		bits &^= unix.S_ISGID
	}
	return bits
}

// lessPrivileged takes from a regular file what its next owner is not to have.
func lessPrivileged(name string, mode uint32) error {
	if bits := afterChown(mode); bits != mode&0o7777 {
		if err := unix.Chmod(name, bits); err != nil {
			return err
		}
	}
	err := unix.Removexattr(name, capabilityKey)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// noteAt returns the note of an open file, nil if there is none.
func (s *Snapshots) noteAt(fd int) (*note, error) {
	var b [512]byte
	size, err := unix.Getxattr(descriptor(fd), noteKey, b[:])
	if err == nil {
		var noted note
		if err := json.Unmarshal(b[:size], &noted); err != nil {
			return nil, nil //nolint:nilerr // somebody else's attribute
		}
		return &noted, nil
	}
	if errors.Is(err, unix.ENODATA) && s.attributed(fd) || errors.Is(err, unix.ERANGE) {
		return nil, nil
	}
	if s.notes.noTable() {
		return nil, nil
	}
	id, err := inodeAt(fd)
	if err != nil {
		return nil, err
	}
	return s.notes.lookUp(id), nil
}

// attributed says that a file can have an attribute for its note.
func (s *Snapshots) attributed(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	kind := st.Mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// tableAt notes in the table what an open file can't have as an attribute, if it can be one of a snapshot's.
func (s *Snapshots) tableAt(fd int, st *unix.Stat_t, noted note) error {
	var home unix.Stat_t
	if err := unix.Stat(s.options.Dir, &home); err != nil {
		return &os.PathError{Op: "stat", Path: s.options.Dir, Err: err}
	}
	if home.Dev != st.Dev {
		return nil
	}
	id, err := inodeAt(fd)
	if err != nil {
		return err
	}
	return s.notes.put(id, noted)
}

func inodeAt(fd int) (inode, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	return inode{st.Ino, st.Btime.Sec*1e9 + int64(st.Btime.Nsec)}, err
}

// Adopt notes that what was made in a snapshot's folder since a time, and of which nothing is noted, is a user's. It is
// for a step whose processes should have been that user's, and could not.
func (s *Snapshots) Adopt(root string, since time.Time, uid, gid uint32) error {
	if s.idOf(root) == "" || s.notes == nil {
		return nil
	}
	entries, err := scan(root, nil)
	if err != nil {
		return fmt.Errorf("look for what a step has made: %w", err)
	}
	began := since.Add(-tick()).UnixNano()
	groups := map[string]uint32{} // of folders that hand theirs down
	for i := range entries {
		e := &entries[i]
		if err := s.adopt(root, e, began, uid, gid, groups); err != nil {
			return fmt.Errorf("note the owner of %q: %w", e.path, err)
		}
	}
	return nil
}

func (s *Snapshots) adopt(root string, e *entry, began int64, uid, gid uint32, groups map[string]uint32) error {
	isNew, handsDown := e.ctime >= began, e.isDir() && e.mode&unix.S_ISGID != 0
	if !isNew && !handsDown {
		return nil
	}
	path := filepath.Join(root, e.path)
	noted, err := s.notes.of(path, e.mode)
	if err != nil {
		return err
	}
	if noted == nil {
		noted = &note{Mode: e.mode & 0o7777, AnyUID: true, AnyGID: true}
	}
	if noted.AnyUID || noted.AnyGID {
		id, err := inodeOf(path)
		if err != nil {
			return err
		}
		if isNew && id.Born >= began {
			if group, ok := groups[filepath.Dir(e.path)]; ok {
				gid = group
			}
			noted.settle(uid, gid)
		}
		noted.AnyUID, noted.AnyGID, noted.Mode = false, false, e.mode&0o7777
		if !noted.plain() {
			if err := s.notes.write(path, *noted); err != nil {
				return err
			}
		}
	}
	if handsDown {
		groups[e.path] = uint32(noted.GID)
	}
	return nil
}

// settle makes a file of whom nobody was named a user's.
func (n *note) settle(uid, gid uint32) {
	if n.AnyUID {
		n.UID = int(uid)
	}
	if n.AnyGID {
		n.GID = int(gid)
	}
}
