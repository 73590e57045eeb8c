//go:build linux

package handover

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// TestHold reads folders while children are made.
func TestHold(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0, Unread: func(key string) bool { return strings.HasSuffix(key, "-view") }})
	w.step("a", "", "echo a >f")
	m, err := w.View(t.Context(), "a-view", "a")
	w.must(err)
	release, err := w.Hold(t.Context(), m[0].Source)
	w.must(err)
	one := w.prepare("one", "a") // a copy, since a is being read
	sh(t, one, "echo one >>f")
	if got := read(t, m[0].Source, "f"); got != "a\n" {
		t.Errorf("who reads sees %q", got)
	}
	release()
	release() // a second time is nothing
	two := w.prepare("two", "a")
	if _, err := os.Lstat(m[0].Source); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nobody reads the folder, and it was not taken over: %v", err)
	}
	sh(t, two, "echo two >>f")
	release, err = w.Hold(t.Context(), m[0].Source)
	w.must(err)
	if got := read(t, m[0].Source, "f"); got != "a\n" {
		t.Errorf("built again it has %q", got)
	}
	release()
	release, err = w.Hold(t.Context(), t.TempDir())
	w.must(err)
	release()
	release, err = w.Hold(t.Context(), two) // is committed and has a child while it is being read
	w.must(err)
	w.must(w.Commit(t.Context(), "b", "two"))
	sh(t, w.prepare("four", "b"), "echo four >>f")
	if got := read(t, two, "f"); got != "a\ntwo\n" {
		t.Errorf("who reads sees %q", got)
	}
	release()
	lent := filepath.Join(filepath.Dir(one), "lent")
	w.must(os.Rename(one, lent)) // to a step that was killed
	again := w.reopened()
	w.must(os.Rename(lent, one))
	if got := read(t, again.prepare("three", "b"), "f"); got != "a\ntwo\n" {
		t.Errorf("another process has %q", got)
	}
	w.must(again.Commit(t.Context(), "c", "one")) // prepared by the first
	if got := list(t, again.layer("a", "c")); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"a\none\n"`) {
		t.Errorf("its layer:\n%s", got)
	}
}

// TestQuickly changes a file in a way that only its content shows, faster than the clock of files goes.
func TestQuickly(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0})
	parent := ""
	for i := range 20 {
		name := fmt.Sprint(i)
		path := filepath.Join(w.prepare("active", parent), "f")
		w.must(os.WriteFile(path, []byte{byte('a' + i)}, 0o600))
		w.must(setTime(path, 1500000000_000000000))
		w.must(w.Commit(t.Context(), name, "active"))
		if got := list(t, w.layer(parent, name)); !strings.Contains(got, fmt.Sprintf(`0,0 "%c"`, 'a'+i)) {
			t.Fatalf("step %d has the layer %q", i, got)
		}
		parent = name
	}
}

// TestManyChildren makes children of the same parents at once, while others read.
func TestManyChildren(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0})
	w.step("base", "", "mkdir d; for i in 1 2 3 4 5; do echo $i >d/$i; done")
	var all sync.WaitGroup
	for n := range 12 {
		all.Go(func() {
			if err := w.family(t, n); err != nil {
				t.Errorf("family %d: %v", n, err)
			}
		})
	}
	all.Wait()
	w.folders.mu.Lock()
	defer w.folders.mu.Unlock()
	if len(w.folders.readers) > 0 || len(w.folders.busy) > 0 {
		t.Errorf("still read: %v, worked on: %v", w.folders.readers, w.folders.busy)
	}
}

// family is a chain of three snapshots, each read in between.
func (w *world) family(t *testing.T, n int) error {
	ctx, parent, want := t.Context(), "base", "3\n"
	for generation := range 3 {
		key := fmt.Sprintf("%d.%d", n, generation)
		m, err := w.Prepare(ctx, "active "+key, parent)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(m[0].Source, "d/3"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(key + "\n")
		if err = errors.Join(err, f.Close(), w.Commit(ctx, key, "active "+key)); err != nil {
			return err
		}
		want += key + "\n"
		for _, see := range []struct{ name, want string }{{key, want}, {"base", "3\n"}} {
			view := fmt.Sprintf("view %s %s", key, see.name)
			m, err := w.View(ctx, view, see.name)
			if err != nil {
				return err
			}
			got, err := os.ReadFile(filepath.Join(m[0].Source, "d/3"))
			if err != nil || string(got) != see.want {
				return fmt.Errorf("%s has %q, want %q: %w", see.name, got, see.want, err)
			}
			if err := w.Remove(ctx, view); err != nil {
				return err
			}
		}
		parent = key
	}
	return nil
}

// TestMergedByLinks changes a snapshot that BuildKit has merged out of others by hard links.
func TestMergedByLinks(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0})
	w.step("a", "", "mkdir d; echo a >d/f; ln d/f d/g; ln -s f d/s")
	from, to := w.view("a"), w.prepare("merge", "")
	sh(t, to, "mkdir d; ln "+from+"/d/f d/f; ln "+from+"/d/g d/g; ln "+from+"/d/s d/s")
	w.must(w.Commit(t.Context(), "merged", "merge"))
	w.step("b", "merged", "echo b >>d/g; chmod 600 d/g")
	if got := read(t, from, "d/f"); got != "a\n" {
		t.Errorf("the snapshot that was merged has %q", got)
	}
	if got := list(t, w.layer("merged", "b")); strings.Count(got, "\n") != 3 || !strings.Contains(got, `"d/f"`) {
		t.Errorf("a changed file with two names:\n%s", got)
	}
	w.step("c", "a", ":")
	if got := list(t, w.layer("a", "c")); got != "" {
		t.Errorf("the snapshot that was merged has changed:\n%s", got)
	}
}

// TestRest has a snapshot that is unpacked from layers be what it was, also in what layers don't tell.
func TestRest(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0})
	dir := w.prepare("active", "")
	sh(t, dir, "mkdir d; echo x >d/f; ln -s f d/s; touch -h -d @1234567890.123456789 d/s d/f; touch -d @1234567890.5 d")
	if err := unix.Lsetxattr(filepath.Join(dir, "d/f"), "user.kept", []byte("value\x00"), 0); err != nil {
		t.Skipf("no user attributes here: %v", err)
	}
	w.must(w.Commit(t.Context(), "a", "active"))
	if got := list(t, w.layer("", "a")); strings.Contains(got, "kept") || !strings.Contains(got, "1234567890") {
		t.Errorf("layer:\n%s", got)
	}
	w.rebuild("a")
	dir = w.view("a")
	for path, want := range map[string]int64{"d/f": 1234567890_123456789, "d/s": 1234567890_123456789, "d": 1234567890_500000000} {
		if info, err := os.Lstat(filepath.Join(dir, path)); err != nil || info.ModTime().UnixNano() != want {
			t.Errorf("%s: %v, %v", path, info.ModTime(), err)
		}
	}
	var b [64]byte
	if n, err := unix.Lgetxattr(filepath.Join(dir, "d/f"), "user.kept", b[:]); err != nil || string(b[:n]) != "value\x00" {
		t.Errorf("attribute %q, %v", b[:n], err)
	}
}

// TestRewind has a folder be what it was before all the changes that are compared with overlayfs elsewhere.
func TestRewind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the changes are root's")
	}
	w := newWorld(t, Options{})
	base := w.image()
	w.step("first", base, "mkdir made; echo by a step >made/file; ln made/file made/link; touch -h -d @1600000000.5 made/file srv")
	want, list := w.layerOfFolders("", "first"), w.times("first")
	rewound := 0
	for name, script := range overlayCases() {
		w.step(name, "first", script)
		w.step(name+"+", name, "echo more >>etc/more; chmod 700 .")
		w = w.reopened() // the next build, which has not asked for any of them
		w.kill = func(point string) {
			if point == "descendant taken" {
				rewound++
			}
		}
		if got := w.times("first"); got != list {
			t.Errorf("%s: the folder has\n%s\nwant\n%s", name, got, list)
		}
		sameLayer(t, w.layerOfFolders("", "first"), want)
		w = w.reopened()
	}
	if n := len(overlayCases()); rewound < n-3 { // some change nearly all
		t.Errorf("%d of %d folders were wound back", rewound, n)
	}
}

// times describes the files of a snapshot's folder as no layer does.
func (w *world) times(name string) string {
	w.t.Helper()
	entries, err := scan(w.view(name), w.notes)
	w.must(err)
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%q %o %d:%d %d %d %d\n", e.path, e.mode, e.uid, e.gid, e.rdev, e.mtime, e.nlink)
	}
	return b.String()
}

// TestHostile unpacks what tries to get out. Whatever becomes of it, nothing outside changes.
func TestHostile(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	for name, layer := range map[string][]tar.Header{
		"dots":              {{Name: up + outside + "/new", Linkname: "evil"}, {Name: up + outside + "/file", Linkname: "evil"}},
		"absolute":          {{Name: outside + "/file", Linkname: "evil"}},
		"through a symlink": {link("l", outside), {Name: "l/file", Linkname: "evil"}, {Name: "l/new", Linkname: "evil"}},
		"through two":       {link("a", "b"), link("b", up+outside), {Name: "a/file", Linkname: "evil"}},
		"over a symlink":    {link("l", outside+"/file"), {Name: "l", Linkname: "evil"}},
		"folder on symlink": {link("l", outside), {Typeflag: tar.TypeDir, Name: "l/", Mode: 0o777, Uid: 99}, {Name: "l/file", Linkname: "evil"}},
		"hard link out":     {hard("h", up+outside+"/file"), {Name: "h", Linkname: "evil"}},
		"hard link through": {link("l", outside), hard("h", "l/file")},
		"whiteout out":      {link("l", outside), {Name: "l/.wh.file"}},
		"whiteout dots":     {{Name: ".wh..."}, {Name: "d/.wh.."}, {Name: ".wh."}},
		"opaque out":        {link("l", outside), {Name: "l/.wh..wh..opq"}},
		"device numbers":    {{Typeflag: tar.TypeChar, Name: "dev", Devmajor: 1 << 40, Devminor: 3, Format: tar.FormatGNU}},
		"a long name":       {{Name: strings.Repeat("n", 5000), Linkname: "x"}},
		"a deep name":       {{Name: strings.Repeat("d/", 3000) + "f", Linkname: "x"}},
		"the root":          {{Typeflag: tar.TypeDir, Name: "./", Mode: 0o777, Uid: 4}, link("./", outside), hard(".", "x")},
		"a root of links":   {link("x", "/"), link("x/y", ".."), {Name: "x/y/z/" + outside + "/file", Linkname: "evil"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := layerOf(t, layer...)
			w := newWorld(t, Options{OwnersAside: true})
			root := w.prepare("layer", "")
			_ = w.unpack(t.Context(), root, bytes.NewReader(b))
			_ = w.Unpack(t.Context(), w.prepare("archive", ""), bytes.NewReader(b), nil)
			if got := read(t, outside, "file"); got != "safe" {
				t.Errorf("a file outside has %q", got)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
				t.Errorf("outside: %v, %v", left, err)
			}
			if info, err := os.Stat(outside); err != nil || info.Mode().Perm()&0o022 != 0 {
				t.Errorf("outside: %v, %v", info.Mode(), err)
			}
		})
	}
}
