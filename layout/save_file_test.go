package layout_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

// large is a store with layers of many sizes, as they lie badly in an archive.
func large(t testing.TB) (*layout.Store, *layout.Image) {
	t.Helper()
	s := open(t, t.TempDir())
	for n, size := range []int64{100, 65_000, 66_000, 1 << 20, 3<<20 + 511} {
		put(t, s, from(t, oci(image(t, "linux/amd64", 3, size+int64(n)))), "app:"+itoa(int64(n)))
	}
	return s, find(t, s, "app:4")
}

// begins says where in the archive the content of each file begins.
func begins(t testing.TB, archive []byte) map[string]int64 {
	t.Helper()
	at, r := map[string]int64{}, bytes.NewReader(archive)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return at
		}
		if err != nil {
			t.Fatal(err)
		}
		if at[h.Name], err = r.Seek(0, io.SeekCurrent); err != nil {
			t.Fatal(err)
		}
		if h.Size < 64<<10 {
			delete(at, h.Name)
		}
	}
}

// File systems share blocks only if they lie at the same offset within a block
// on both sides.
func TestLargeBlobsBeginWhereBlocksDo(t *testing.T) {
	s, _ := large(t)
	archive := save(t, s, "app:0", "app:1", "app:2", "app:3", "app:4")
	at := begins(t, archive)
	if len(at) < 9 {
		t.Errorf("only %d large blobs", len(at))
	}
	for name, offset := range at {
		if offset%4096 != 0 {
			t.Errorf("%s begins at %d, %d bytes off", name, offset, offset%4096)
		}
	}
	load(t, open(t, t.TempDir()), archive)
}

// Whatever the archive goes to, it is the same.
func TestSaveWritesTheSameToEverything(t *testing.T) {
	s, _ := large(t)
	refs := []string{"app:0", "app:2", "app:4"}
	want := save(t, s, refs...)
	for what, at := range map[string]struct {
		flags  int
		before string
	}{
		"a new file":         {os.O_RDWR, ""},
		"behind a block":     {os.O_RDWR, string(make([]byte, 4096))},
		"behind other bytes": {os.O_RDWR, "hello"},
		"appended":           {os.O_WRONLY | os.O_APPEND, "hello"},
	} {
		f, err := os.OpenFile(filepath.Join(t.TempDir(), "a.tar"), at.flags|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(at.before); err != nil {
			t.Fatal(err)
		}
		saveTo(t, s, f, refs...)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, append([]byte(at.before), want...)) {
			t.Errorf("%s: %d bytes, want %d, %v", what, len(got), len(want), err)
		}
	}
}

func saveTo(t testing.TB, s *layout.Store, w io.Writer, refs ...string) {
	t.Helper()
	var images []*layout.Image
	for _, r := range refs {
		images = append(images, find(t, s, r))
	}
	if err := s.Save(t.Context(), w, images, layout.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
}

type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return 0, errNetwork
	}
	f.room -= len(p)
	return len(p), nil
}

func TestSaveSaysWhoFailed(t *testing.T) {
	s, img := large(t)
	var failed *layout.WriteError
	for _, room := range []int{0, 512, 3000, 70_000, 9 << 20} {
		err := s.Save(t.Context(), &full{room}, []*layout.Image{img}, layout.SaveOptions{})
		if !errors.As(err, &failed) || !errors.Is(err, errNetwork) {
			t.Errorf("a writer with room for %d bytes: %v", room, err)
		}
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.BlobPath(m.Layers[1].Digest)); err != nil {
		t.Fatal(err)
	}
	var missing *layout.MissingError
	var out bytes.Buffer
	err = s.Save(t.Context(), &out, []*layout.Image{img}, layout.SaveOptions{})
	if !errors.As(err, &missing) || missing.Digest != m.Layers[1].Digest || out.Len() > 0 {
		t.Errorf("a layer that is gone: %v, %d bytes", err, out.Len())
	}
}

// From a file, from memory and from a pipe: the same images, or the same error.
func TestLoadReadsTheSameFromEverything(t *testing.T) {
	s, img := large(t)
	whole := save(t, s, "app:1", "app:4")
	layer := img.Descriptor().Digest
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	last := begins(t, whole)["blobs/sha256/"+m.Layers[2].Digest.Hex]
	for what, archive := range map[string][]byte{
		"whole":               whole,
		"a flipped bit":       flip(whole, int(last)+100_000),
		"cut in a large file": whole[:last+2<<20],
		"cut at its end":      whole[:len(whole)-1024],
		"something behind":    append(slices.Clone(whole), "behind"...),
	} {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, append([]byte("skipped"), archive...), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Seek(7, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, r := range []io.Reader{struct{ io.Reader }{bytes.NewReader(archive)}, bytes.NewReader(archive), f} {
			to := open(t, t.TempDir())
			before := files(t, to)
			images, err := to.Load(t.Context(), r, layout.LoadOptions{})
			if (err == nil) != (what == "whole") {
				t.Errorf("%s: %v", what, err)
			}
			if err != nil {
				texts = append(texts, err.Error())
				if after := files(t, to); !slices.Equal(before, after) {
					t.Errorf("%s: left %v", what, after)
				}
				continue
			}
			check(t, to)
			if len(images) != 2 || images[1].Descriptor().Digest != layer {
				t.Errorf("%s: %d images", what, len(images))
			}
		}
		if len(slices.Compact(texts)) > 1 {
			t.Errorf("%s: told as %q", what, texts)
		}
	}
}

// The golden digest of a large archive stands for its alignment, which must be
// the same on every machine.
func TestSavedLargeBytesNeverChange(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, from(t, fixed(t, "linux/amd64", string(bytes.Repeat([]byte("0123456789abcdef"), 5000)), string(bytes.Repeat([]byte("x"), 1<<20+1)))), alpine)
	const golden = "dfbbad58c399243b0bfa7f22c803296a230167270e0ea491167e2c7cee6f60ca"
	got, _, err := v1.SHA256(bytes.NewReader(save(t, s, "alpine:3.20")))
	if err != nil || got.Hex != golden {
		t.Errorf("the archive is %s, was %s, %v", got.Hex, golden, err)
	}
}
