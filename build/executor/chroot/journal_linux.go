package chroot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// kind is what an entry of the journal says was about to be done.
type kind string

const (
	madeFolder kind = "folder" // To was made on the way to a target: to be removed if it is empty
	covered    kind = "cover"  // what was at To lies at From: to be put back
	placed     kind = "place"  // To is ours: to be removed
	moved      kind = "move"   // To is From, which lies outside: to be put back
)

// entry is a line of the journal. To is a path in the root file system, without links; From is one as this process
// sees it.
type entry struct {
	Kind  kind
	To    string
	From  string `json:",omitempty"`
	Thing inode  `json:"I"` // what was moved or placed
}

// inode is one file or folder, for as long as it is there, also if its number is used again.
type inode struct {
	Dev  uint64 `json:"d"`
	Ino  uint64 `json:"i"`
	Born int64  `json:"b"`
	Mode uint32 `json:"m"`
	UID  uint32 `json:"u"`
	GID  uint32 `json:"g"`
}

// same says whether both are the same file or folder, whatever has happened to its mode and owner.
func (i inode) same(other inode) bool {
	return i.Dev == other.Dev && i.Ino == other.Ino && i.Born == other.Born && i.Mode&unix.S_IFMT == other.Mode&unix.S_IFMT
}

// inodeAt says what name in the folder dir is, or with name "" what dir itself is.
func inodeAt(dir int, name string) (inode, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	return inode{
		Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Born: st.Btime.Sec*1e9 + int64(st.Btime.Nsec),
		Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid,
	}, err
}

// journal says what has to be undone. An entry is a symlink whose target is its text, made before what it describes is
// done: so an entry is there as a whole or not at all, and like a rename it is a change of a folder, which file
// systems keep in order.
type journal struct {
	dir     string
	entries []entry
}

// journalRoot is the journal's link to the root file system.
const journalRoot = "rootfs"

// newJournal makes a journal for changes to rootfs.
func newJournal(dir, rootfs string) (*journal, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &journal{dir: dir}, os.Symlink(rootfs, filepath.Join(dir, journalRoot))
}

// openJournal reads what a killed process has left.
func openJournal(dir string) (j *journal, rootfs string, err error) {
	if rootfs, err = os.Readlink(filepath.Join(dir, journalRoot)); err != nil {
		return nil, "", err
	}
	j = &journal{dir: dir}
	for {
		text, err := os.Readlink(j.name(len(j.entries)))
		if errors.Is(err, fs.ErrNotExist) {
			return j, rootfs, nil
		}
		if err != nil {
			return nil, "", err
		}
		var e entry
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return nil, "", fmt.Errorf("journal %q: %w", dir, err)
		}
		j.entries = append(j.entries, e)
	}
}

func (j *journal) name(i int) string { return filepath.Join(j.dir, strconv.Itoa(i)) }

// add writes an entry.
func (j *journal) add(e entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := os.Symlink(string(text), j.name(len(j.entries))); err != nil {
		return err
	}
	j.entries = append(j.entries, e)
	return nil
}

// undo calls f with each entry, the last one first, and forgets those that f has undone. The others stay, and their
// errors come back.
func (j *journal) undo(f func(entry) error) error {
	var errs []error
	for i, e := range slices.Backward(j.entries) {
		if err := f(e); err != nil {
			errs = append(errs, fmt.Errorf("take %s out of the root file system: %w", e.To, err))
			continue
		}
		if len(errs) == 0 { // openJournal reads up to the first gap
			if err := os.Remove(j.name(i)); err != nil {
				errs = append(errs, err)
			}
			j.entries = j.entries[:i]
		}
	}
	return errors.Join(errs...)
}
