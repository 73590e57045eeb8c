//go:build linux

package handover

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Owner is whose a file is, and what may be done with it.
type Owner struct {
	UID, GID int
	Mode     fs.FileMode // its permissions, and setuid, setgid and sticky
}

// noteKey is the extended attribute in which a note is kept. It goes with a file where its attributes are copied, and
// the build cache takes it for a part of the content.
const noteKey = "user.wherry.owner"

// note is what a file should be and could not be made. A file without one is root's.
type note struct {
	UID        int    `json:"u,omitempty"`
	GID        int    `json:"g,omitempty"`
	Mode       uint32 `json:"m"`           // holds for as long as the file has the mode that goes with it: aside
	Device     uint32 `json:"t,omitempty"` // S_IFCHR or S_IFBLK: an empty file stands for it
	Rdev       uint64 `json:"d,omitempty"`
	Capability []byte `json:"c,omitempty"`
	// AnyUID and AnyGID say that a step named only the other of the two, of a file of which nothing was noted: whose
	// it is else is seen when the step has ended. See Adopt.
	AnyUID bool `json:"au,omitempty"`
	AnyGID bool `json:"ag,omitempty"`
}

// plain says that the note says nothing but the mode.
func (n *note) plain() bool {
	return n.UID == 0 && n.GID == 0 && n.Device == 0 && n.Capability == nil
}

// aside is the mode that a file is given in place of the one that is noted: its owner, who is us, can always read it
// and change it, and nobody becomes us by it.
func aside(mode uint32) uint32 {
	perm := mode&0o777 | 0o600
	if mode&unix.S_IFMT == unix.S_IFDIR {
		perm |= 0o700
	}
	return perm
}

// aside is that mode, or, where modes are kept, the same one.
func (n *notes) aside(mode uint32) uint32 {
	if n.modesKept {
		return mode & 0o7777
	}
	return aside(mode)
}

// notes keeps owners, modes, devices and capabilities of files that can't have them: in an extended attribute of each
// file, or, where there can be none (symlinks; file systems without user attributes), in a table. A nil *notes is that
// of a process that can give files away.
type notes struct {
	path      string
	modesKept bool
	mu        sync.Mutex
	table     map[inode]note
}

// inode is one file for as long as it is there, also if its number is used again.
type inode struct {
	Number uint64 `json:"i"`
	Born   int64  `json:"b"`
}

type tableLine struct {
	inode
	Note *note `json:"n"` // null: there is none any more
}

// openNotes reads the table at path, which need not be there. A line that was being written when the process was
// killed is of a file that no snapshot has.
func openNotes(path string, modesKept bool) (*notes, error) {
	n := &notes{path: path, modesKept: modesKept, table: map[inode]note{}}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var l tableLine
		switch err := json.Unmarshal(lines.Bytes(), &l); {
		case err != nil:
		case l.Note == nil:
			delete(n.table, l.inode)
		default:
			n.table[l.inode] = *l.Note
		}
	}
	return n, lines.Err()
}

// read makes e say what is noted of the file at path.
func (n *notes) read(path string, e *entry) error {
	if n == nil {
		return nil
	}
	e.uid, e.gid = 0, 0
	noted, err := n.of(path, e.mode)
	if err != nil || noted == nil {
		return err
	}
	e.uid, e.gid, e.capability = uint32(noted.UID), uint32(noted.GID), string(noted.Capability)
	if e.mode&0o7777 == n.aside(noted.Mode|e.kind()) {
		e.mode = e.kind() | noted.Mode&0o7777
	}
	if noted.Device != 0 && e.kind() == unix.S_IFREG && e.size == 0 {
		e.mode = e.mode&^unix.S_IFMT | noted.Device
		e.rdev = noted.Rdev
	}
	return nil
}

// of returns the note of a file, nil if there is none.
func (n *notes) of(path string, mode uint32) (*note, error) {
	if kind := mode & unix.S_IFMT; kind == unix.S_IFREG || kind == unix.S_IFDIR {
		var b [512]byte
		size, err := unix.Lgetxattr(path, noteKey, b[:])
		switch {
		case err == nil:
			var noted note
			if err := json.Unmarshal(b[:size], &noted); err != nil {
				return nil, nil //nolint:nilerr // somebody else's attribute
			}
			return &noted, nil
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ERANGE):
			return nil, nil
		case !errors.Is(err, unix.ENOTSUP):
			return nil, &os.PathError{Op: "getxattr", Path: path, Err: err}
		}
	}
	return n.inTable(path)
}

func (n *notes) inTable(path string) (*note, error) {
	if n.noTable() {
		return nil, nil
	}
	id, err := inodeOf(path)
	if err != nil {
		return nil, err
	}
	return n.lookUp(id), nil
}

func (n *notes) noTable() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.table) == 0
}

func (n *notes) lookUp(id inode) *note {
	n.mu.Lock()
	defer n.mu.Unlock()
	if noted, ok := n.table[id]; ok {
		return &noted
	}
	return nil
}

func inodeOf(path string) (inode, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return inode{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return inode{st.Ino, st.Btime.Sec*1e9 + int64(st.Btime.Nsec)}, nil
}

// write notes what the file at path should be, and gives it the mode that goes with it.
func (n *notes) write(path string, noted note) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFLNK && st.Mode&0o7777 != n.aside(noted.Mode|kind) {
		if err := unix.Chmod(path, n.aside(noted.Mode|kind)); err != nil {
			return pathError("chmod", path, err)
		}
	}
	if kind == unix.S_IFREG || kind == unix.S_IFDIR {
		b, err := json.Marshal(noted)
		if err != nil {
			return err
		}
		err = unix.Lsetxattr(path, noteKey, b, 0)
		if err == nil || !errors.Is(err, unix.ENOTSUP) {
			return pathError("setxattr", path, err)
		}
	}
	return n.intoTable(path, noted)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func (n *notes) intoTable(path string, noted note) error {
	id, err := inodeOf(path)
	if err != nil {
		return err
	}
	return n.put(id, noted)
}

func (n *notes) put(id inode, noted note) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	line, err := json.Marshal(tableLine{id, &noted})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(n.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	n.table[id] = noted
	return nil
}

// copyInTable notes of a copy what the table says of its original. An attribute is copied as all of them are.
func (n *notes) copyInTable(to, from string) error {
	if n == nil {
		return nil
	}
	noted, err := n.inTable(from)
	if err != nil || noted == nil {
		return err
	}
	return n.intoTable(to, *noted)
}

// Aside says how a file or folder of root's is made elsewhere so that it is one with this mode in a folder of snapshots
// that keep owners aside: with which mode, and with which extended attribute; key is "" if there is no need of one.
func Aside(mode fs.FileMode) (made fs.FileMode, key string, value []byte, err error) {
	if !mode.IsRegular() && !mode.IsDir() {
		return mode, "", nil, nil
	}
	kind := uint32(unix.S_IFREG)
	if mode.IsDir() {
		kind = unix.S_IFDIR
	}
	needed := aside(kind)
	if bits := modeBits(mode); bits&needed != needed {
		value, err = json.Marshal(note{Mode: bits})
		return mode.Type() | fs.FileMode(aside(kind|bits)), noteKey, value, err
	}
	return mode, "", nil, nil
}

// SetOwner makes the file at path, which is in a folder of a snapshot, its owner's, with the mode. A symlink is not
// followed and has no mode. Where owners are kept aside both are noted, and whatever kind of file it is keeps its other
// notes; else they are set.
func (s *Snapshots) SetOwner(path string, o Owner) error {
	if o.UID < 0 || o.GID < 0 {
		return fmt.Errorf("set the owner of %q: %d:%d is no owner", path, o.UID, o.GID)
	}
	if s.notes == nil {
		return setOwner(path, o)
	}
	var e entry
	var err error
	if e, err = s.lstat(path); err != nil {
		return err
	}
	noted := note{UID: o.UID, GID: o.GID, Mode: modeBits(o.Mode), Capability: []byte(e.capability)}
	if e.kind() == unix.S_IFCHR || e.kind() == unix.S_IFBLK {
		noted.Device, noted.Rdev = e.kind(), e.rdev
	}
	return s.notes.write(path, noted)
}

func setOwner(path string, o Owner) error {
	if err := os.Lchown(path, o.UID, o.GID); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return err
	}
	return pathError("chmod", path, unix.Chmod(path, modeBits(o.Mode))) // after chown, which takes setuid away
}

// Owner says whose the file at path is, and its mode: what is noted, or what it has. Where owners are kept aside a
// file of which nothing is noted is root's.
func (s *Snapshots) Owner(path string) (Owner, error) {
	e, err := s.lstat(path)
	return Owner{UID: int(e.uid), GID: int(e.gid), Mode: FileMode(e.mode)}, err
}

func (s *Snapshots) lstat(path string) (entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return entry{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	e := entryOf(path, &st)
	return e, s.notes.read(path, &e)
}

// modeBits is a mode's permissions, setuid, setgid and sticky as the kernel has them.
func modeBits(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for flag, bit := range specialBits() {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// FileMode is a mode as the kernel has it: permissions, setuid, setgid and sticky.
func FileMode(bits uint32) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	for flag, bit := range specialBits() {
		if bits&bit != 0 {
			m |= flag
		}
	}
	return m
}

func specialBits() map[fs.FileMode]uint32 {
	return map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX}
}
