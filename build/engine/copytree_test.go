//go:build linux

package engine

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/sysx"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	"github.com/moby/sys/user"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"
)

// plainFolder is a snapshot that is a folder.
type plainFolder struct {
	snapshot.Mountable
	dir string
}

func (f plainFolder) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{Type: "bind", Source: f.dir, Options: []string{"rbind"}}}, func() error { return nil }, nil
}

func (plainFolder) IdentityMapping() *user.IdentityMapping { return nil }

// TestCopyAsFsutil copies a tree that has all that is odd with fsutil, as BuildKit's
// backend does, and with ours, and compares the two.
func TestCopyAsFsutil(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	oddTree(t, src)
	mode, epoch := 0o2751, time.Unix(1_000_000_000, 7)
	for name, c := range map[string]struct {
		src, dest string
		wildcard  bool
		opt       fscopy.CopyInfo
		owner     *fscopy.User
		before    func(t *testing.T, dir string)
		fails     bool
	}{
		"new":            {src: "/tree", dest: "/a/b"},
		"contents":       {src: "/tree/.", dest: "/"},
		"slash":          {src: "/tree/", dest: "/a/"},
		"the root":       {src: "/", dest: "/all"},
		"a link to it":   {src: "/way", dest: "/a", opt: fscopy.CopyInfo{FollowLinks: true}},
		"owner and mode": {src: "/tree", dest: "/a/b", owner: &fscopy.User{UID: 12, GID: 34}, opt: fscopy.CopyInfo{Mode: &mode}},
		"time":           {src: "/tree", dest: "/a/b", opt: fscopy.CopyInfo{Utime: &epoch}},
		"without":        {src: "/tree", dest: "/a", opt: fscopy.CopyInfo{ExcludePatterns: []string{"**/f1*", "deep/er", "one"}}},
		"several":        {src: "/tree/*e*", dest: "/a/", wildcard: true},
		"into": {src: "/tree", dest: "/a", before: func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a/deep/er", 0o711), os.MkdirAll(dir+"/a/many", 0o700), os.WriteFile(dir+"/a/many/f1", []byte("old"), 0o600),
				os.Symlink("/etc/passwd", dir+"/a/many/f2"), os.WriteFile(dir+"/a/link", nil, 0o600), os.WriteFile(dir+"/a/stays", nil, 0o600),
				os.Link(dir+"/a/stays", dir+"/a/one"), os.Chmod(dir+"/a", 0o2775))
		}},
		"through a link": {src: "/tree", dest: "/a/b", before: func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/elsewhere", 0o755), os.Symlink("/elsewhere", dir+"/a"))
		}},
		"folder over file": {src: "/tree", dest: "/a", fails: true, before: func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a", 0o755), os.WriteFile(dir+"/a/deep", nil, 0o600))
		}},
		"over a file": {src: "/tree", dest: "/a", fails: true, before: func(t *testing.T, dir string) {
			must(t, os.WriteFile(dir+"/a", nil, 0o600))
		}},
		"folder over link": {src: "/tree", dest: "/a", fails: true, before: func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a", 0o755), os.Symlink("/", dir+"/a/deep"))
		}},
		"file over folder": {src: "/tree", dest: "/a", fails: true, before: func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a/one", 0o755))
		}},
		"replacing": {src: "/tree", dest: "/a", opt: fscopy.CopyInfo{AlwaysReplaceExistingDestPaths: true}, before: func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/a/one/more", 0o755), os.Symlink("/", dir+"/a/deep"), os.MkdirAll(dir+"/a/link", 0o755))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now().Add(-time.Second)
			theirs, ours := t.TempDir(), t.TempDir()
			for _, dir := range []string{theirs, ours} {
				if c.before != nil {
					c.before(t, dir)
				}
			}
			c.opt.CopyDirContents, c.opt.Chown = true, chownerTo(c.owner)
			c.opt.XAttrErrorHandler = func(string, string, string, error) error { return nil }
			want := c.opt
			want.AllowWildcards = c.wildcard
			wantErr := fscopy.Copy(t.Context(), src, c.src, theirs, c.dest, fscopy.WithCopyInfo(want))

			copying := &folderCopy{from: plainFolder{dir: src}, to: plainFolder{dir: ours}, opt: c.opt, action: &pb.FileActionCopy{
				Src: c.src, Dest: c.dest, AllowWildcard: c.wildcard, FollowSymlink: c.opt.FollowLinks, CreateDestPath: true,
			}}
			if len(c.opt.ExcludePatterns) > 0 {
				copying.exclude, _ = patternmatcher.New(c.opt.ExcludePatterns)
			}
			done, err := copying.run(t.Context())
			if !done || (err != nil) != c.fails || (wantErr != nil) != c.fails {
				t.Fatalf("done is %v, the error %v, that of fsutil %v", done, err, wantErr)
			}
			if err != nil {
				if strings.Contains(err.Error(), ours) {
					t.Errorf("an error that names a folder of the host: %v", err)
				}
				return
			}
			sameTree(t, describeTree(t, ours, start), describeTree(t, theirs, start))
		})
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func oddTree(t *testing.T, root string) {
	tree := root + "/tree"
	must(t, os.MkdirAll(tree+"/deep/er/still", 0o755), os.MkdirAll(tree+"/many", 0o755), os.MkdirAll(tree+"/empty", 0o755), os.Symlink("tree", root+"/way"))
	for i := range 120 {
		must(t, os.WriteFile(fmt.Sprintf("%s/many/f%d", tree, i), bytes.Repeat([]byte{byte(i)}, i*7), 0o640))
		if i%5 == 0 {
			must(t, os.Link(fmt.Sprintf("%s/many/f%d", tree, i), fmt.Sprintf("%s/deep/er/f%d", tree, i)))
		}
	}
	must(t, os.WriteFile(tree+"/one", []byte("1"), 0o755), os.WriteFile(tree+"/deep/none", nil, 0), os.WriteFile(tree+"/deep/-odd\n\xff name", nil, 0o600),
		os.WriteFile(tree+"/large", bytes.Repeat([]byte("large"), 1<<20), 0o444), os.Truncate(tree+"/one", 3<<20),
		os.Symlink("../../outside", tree+"/link"), os.Symlink("/etc", tree+"/deep/out"), os.Symlink("nowhere", tree+"/deep/er/still/dangling"),
		unix.Mkfifo(tree+"/deep/fifo", 0o621), sysx.LSetxattr(tree+"/one", "user.of a file", []byte("a\x00b"), 0),
		sysx.LSetxattr(tree+"/deep", "user.of a folder", nil, 0))
	if os.Getuid() == 0 {
		capability := []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		must(t, os.Chown(tree+"/large", 1000, 2000), os.Lchown(tree+"/link", 3, 4), os.Chown(tree+"/deep/er", 5, 6), os.Chown(tree+"/many/f7", 0, 7),
			sysx.LSetxattr(tree+"/large", "security.capability", capability, 0), unix.Mknod(tree+"/deep/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	must(t, unix.Chmod(tree+"/many/f7", 0o6711), unix.Chmod(tree+"/deep/er", 0o2500), unix.Chmod(tree+"/empty", 0o1777), unix.Chmod(tree+"/many", 0o555))
	n := int64(0) // times of access that reading does not change
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		n += 1_000_000_001
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 4e9 + n%1000}, unix.NsecToTimespec(6e17 + n)}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// describeTree says all that a step could see of each file. Times of this run are not told
// apart.
func describeTree(t *testing.T, root string, start time.Time) map[string]string {
	seen, first := map[string]string{}, map[uint64]string{}
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		must(t, err, unix.Lstat(path, &st))
		rel, _ := filepath.Rel(root, path)
		text := fmt.Sprintf("mode %o, owner %d:%d, device %x", st.Mode, st.Uid, st.Gid, st.Rdev)
		if changed := time.Unix(st.Mtim.Unix()); changed.Before(start) {
			text += fmt.Sprintf(", changed %v, read %v", changed.UnixNano(), time.Unix(st.Atim.Unix()).UnixNano())
		}
		keys, _ := sysx.LListxattr(path)
		slices.Sort(keys)
		for _, key := range keys {
			value, _ := sysx.LGetxattr(path, key)
			text += fmt.Sprintf(", %s=%q", key, value)
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			if first[st.Ino] != "" {
				text = "as " + first[st.Ino]
				break
			}
			first[st.Ino] = rel
			content, err := os.ReadFile(path)
			must(t, err)
			text += fmt.Sprintf(", %d names, content %x", st.Nlink, sha256.Sum256(content))
		case syscall.S_IFLNK:
			points, err := os.Readlink(path)
			must(t, err)
			text += ", points to " + points
		}
		seen[rel] = text
		return nil
	}))
	return seen
}

func sameTree(t *testing.T, got, want map[string]string) {
	t.Helper()
	both := maps.Clone(got)
	maps.Copy(both, want)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		if got[path] != want[path] {
			t.Errorf("%q\n is        %s\n of fsutil %s", path, got[path], want[path])
		}
	}
	if len(want) < 2 {
		t.Errorf("%d files", len(want))
	}
}
