//go:build linux

package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moby/buildkit/source/local"
	"github.com/tonistiigi/fsutil"
)

// racy is how new a change may be for another one right after it to leave the same times.
const racy = 20 * time.Millisecond

// mark tells the state of a file from any other: inode, size, times, mode, owner, device.
// The time of the last change of the inode finds what keeps size and time.
type mark [16]byte

// seenFile is a file or folder as it was at the last build.
type seenFile struct {
	Path string
	Mark mark // zero: it may have been changing
}

// seenFolder is what was seen of a folder, and where its copy is.
type seenFolder struct {
	Copy  string // of the build cache: the one to change
	Ref   string // of the build cache: the one to use
	Files []seenFile
}

// folderFile is a file or folder as it is now.
type folderFile struct {
	seenFile
	entry  fs.DirEntry
	mode   fs.FileMode
	linked string // path of another name of the same file, that comes before
}

// folderFiles are what a build may read of a folder, in the order of a walk.
type folderFiles struct {
	list []folderFile
	odd  bool // there is something else than files, folders and links
	at   time.Time
}

// walkFolder lists a folder through the patterns of the build.
func walkFolder(ctx context.Context, dir string, id local.LocalIdentifier) (*folderFiles, error) {
	base, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, err
	}
	filtered, err := fsutil.NewFilterFS(base, &fsutil.FilterOpt{
		IncludePatterns: id.IncludePatterns, ExcludePatterns: id.ExcludePatterns, FollowPaths: id.FollowPaths,
	})
	if err != nil {
		return nil, err
	}
	f := &folderFiles{at: time.Now()}
	first := map[uint64]string{}
	err = filtered.Walk(ctx, "", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, path), &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		file := folderFile{seenFile: seenFile{Path: path, Mark: f.markOf(&st)}, entry: entry, mode: entry.Type()}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			if st.Nlink > 1 {
				if file.linked = first[st.Ino]; file.linked == "" {
					first[st.Ino] = path
				}
			}
		case syscall.S_IFDIR, syscall.S_IFLNK:
		default:
			f.odd = true
		}
		f.list = append(f.list, file)
		return nil
	})
	return f, err
}

func (f *folderFiles) markOf(st *syscall.Stat_t) mark {
	changed := time.Unix(st.Ctim.Sec, st.Ctim.Nsec)
	if f.at.Sub(changed) < racy {
		return mark{}
	}
	var b []byte
	for _, n := range []uint64{
		st.Ino, uint64(st.Size), uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano()), //nolint:gosec // only to be told apart
		uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), st.Rdev, st.Dev, uint64(st.Nlink), //nolint:unconvert,nolintlint // on some systems it is one of 32 bits
	} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	sum := sha256.Sum256(b)
	return mark(sum[:len(mark{})])
}

// same reports whether nothing has changed.
func (f *folderFiles) same(before *seenFolder) bool {
	if len(f.list) != len(before.Files) {
		return false
	}
	for i := range f.list {
		if f.list[i].seenFile != before.Files[i] || f.list[i].Mark == (mark{}) {
			return false
		}
	}
	return true
}

// settled is what to remember of the files.
func (f *folderFiles) settled() []seenFile {
	files := make([]seenFile, len(f.list))
	for i := range f.list {
		files[i] = f.list[i].seenFile
	}
	return files
}

// readSeen is nil for what can't be read: everything is copied then.
func readSeen(path string) *seenFolder {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var seen seenFolder
	if gob.NewDecoder(bytes.NewReader(raw)).Decode(&seen) != nil {
		return nil
	}
	return &seen
}

func writeSeen(path string, seen *seenFolder) error {
	var raw bytes.Buffer
	if err := gob.NewEncoder(&raw).Encode(seen); err != nil {
		return err
	}
	return Remember(path, raw.Bytes())
}
