package layout_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

func config(diffID v1.Hash) ([]byte, error) {
	return fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, diffID), nil
}

func importRoot(t testing.TB, s *layout.Store, r io.Reader, names ...string) (*layout.Image, error) {
	t.Helper()
	return s.Import(t.Context(), r, layout.ImportOptions{Names: names, Config: config})
}

// goldenRoot is the digest of the layer that a fixed root file system becomes, and
// goldenGzip of what the engine's test of the same compression packs: a layer has
// the same bytes whether it was built or imported.
const goldenGzip = "121d240e51a06943c9f392c65b0fad488beda66ec74a0b9ee060fd056a1f39c9"

func TestImportedLayersAreCompressedAsThoseOfBuilds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 5<<20+123)
	for i := range data {
		data[i] = byte(r.IntN(16))
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, cores := range []int{1, 4} {
		runtime.GOMAXPROCS(cores)
		if got := fmt.Sprintf("%x", sha256.Sum256(layout.PackLayer(t, data))); got != goldenGzip {
			t.Errorf("%d cores: %s, want %s", cores, got, goldenGzip)
		}
	}
}

func TestImportKeepsOrPacksTheLayer(t *testing.T) {
	root := archiveOf(t, file{name: "./etc/motd", body: "hello"}, file{name: "/abs", body: "x"}, file{name: "l", kind: tar.TypeSymlink, link: "../../up"})
	diffID, _, err := v1.SHA256(bytes.NewReader(root))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, t.TempDir())
	packed := map[string][]byte{"": root}
	for name, pack := range packers() {
		packed[name] = pack(t, root)
	}
	for name, raw := range packed {
		img, err := importRoot(t, s, io.MultiReader(bytes.NewReader(raw[:1]), bytes.NewReader(raw[1:])), "app:"+strings.TrimPrefix("x"+name, "."))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c, err1 := img.Config()
		m, err2 := img.Manifest()
		if err := errors.Join(err1, err2); err != nil || len(m.Layers) != 1 || len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0] != diffID {
			t.Errorf("%s: %+v, %v", name, m, err)
			continue
		}
		d := m.Layers[0]
		if h, _, err := v1.SHA256(bytes.NewReader(raw)); err != nil || (h == d.Digest) != (strings.Contains(name, "gz") || strings.Contains(name, "zst")) {
			t.Errorf("%s is stored as %s %s, %v", name, d.MediaType, d.Digest, err)
		}
	}
	checkBlobs(t, s)
}

func TestImportRefusesWhatIsNotWhole(t *testing.T) {
	good := archiveOf(t, file{name: "a", body: strings.Repeat("a", 5000)})
	zip := packers()
	bad := map[string][]byte{
		"nothing": {}, "no tar": []byte(strings.Repeat("no tar ", 1000)), "a word": []byte("word"),
		"cut":               good[:3000],
		"without an end":    good[:5632],
		"something behind":  append(slices.Clone(good), "behind"...),
		"two archives":      append(slices.Clone(good), good...),
		"a name out":        archiveOf(t, file{name: "../a", body: "x"}),
		"a name out within": archiveOf(t, file{name: "a/../../b", body: "x"}),
		"an absolute one":   archiveOf(t, file{name: "/../b", body: "x"}),
		"a hard link out":   archiveOf(t, file{name: "b", kind: tar.TypeLink, link: "../../etc/shadow"}),
		"a damaged header":  flip(good, 10),
	}
	for name, pack := range zip {
		whole := pack(t, good)
		bad[name+" cut"] = whole[:len(whole)-3]
		bad[name+" damaged"] = flip(whole, len(whole)-6)
		bad[name+" and more"] = append(slices.Clone(whole), "behind"...)
	}
	s := open(t, t.TempDir())
	put(t, s, from(t, image(t, "linux/amd64", 1, 10)), alpine)
	before := files(t, s)
	for what, raw := range bad {
		img, err := importRoot(t, s, bytes.NewReader(raw), "bad:1")
		var invalid *layout.InvalidError
		if !errors.As(err, &invalid) || img != nil {
			t.Errorf("%s: %v, %v", what, img, err)
		}
		if after := files(t, s); !slices.Equal(before, after) {
			t.Fatalf("%s left %v", what, after)
		}
	}
	if _, err := importRoot(t, s, io.MultiReader(bytes.NewReader(good[:2000]), failing{errNetwork})); !errors.Is(err, errNetwork) {
		t.Errorf("a reader that fails: %v", err)
	}
	errConfig := errors.New("no config")
	_, err := s.Import(t.Context(), bytes.NewReader(good), layout.ImportOptions{Config: func(v1.Hash) ([]byte, error) { return nil, errConfig }})
	if !errors.Is(err, errConfig) {
		t.Errorf("a config that fails: %v", err)
	}
	if _, err := importRoot(t, s, bytes.NewReader(good), "Bad Name"); err == nil {
		t.Error("a bad name")
	}
	if after := files(t, s); !slices.Equal(before, after) {
		t.Errorf("left %v", after)
	}
	if left, _ := os.ReadDir(s.Dir() + "/.ingest"); len(left) > 0 {
		t.Errorf("left in .ingest: %v", left)
	}
}

// FuzzImport: any bytes are refused and leave nothing, or are an image that
// others can read.
func FuzzImport(f *testing.F) {
	root := archiveOf(f, file{name: "./etc/motd", body: "hello"}, file{name: "l", kind: tar.TypeSymlink, link: "x"})
	f.Add(root)
	f.Add(root[:512])
	f.Add(make([]byte, 1024))
	for _, pack := range packers() {
		f.Add(pack(f, root))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := open(t, t.TempDir())
		before := files(t, s)
		img, err := importRoot(t, s, bytes.NewReader(raw))
		if err != nil {
			if !slices.Equal(before, files(t, s)) {
				t.Errorf("%v left %v", err, files(t, s))
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("control characters in %q", err)
			}
			return
		}
		checkBlobs(t, s)
		if c, err := img.Config(); err != nil || len(c.RootFS.DiffIDs) != 1 {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
