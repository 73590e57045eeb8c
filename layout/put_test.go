package layout_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
)

var errNetwork = errors.New("connection reset")

// broken reads up to a byte, then fails.
func broken(content []byte, offset, until int64, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(content[offset:max(offset, until)]), failing{err}))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func layerOf(t testing.TB, img v1.Image) v1.Descriptor {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[len(m.Layers)-1]
}

func TestPutRefusesWhatIsNotAnnounced(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, from(t, image(t, "linux/amd64", 1, 1000)), alpine)
	before := files(t, s)
	img := image(t, "linux/amd64", 2, 2<<20)
	layer := layerOf(t, img)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for what, fault := range map[string]func([]byte) []byte{
		"other bytes":  func(b []byte) []byte { return flip(b, len(b)/2) },
		"a byte less":  func(b []byte) []byte { return b[:len(b)-1] },
		"a byte more":  func(b []byte) []byte { return append(slices.Clone(b), 0) },
		"nothing":      func([]byte) []byte { return nil },
		"no end to it": func(b []byte) []byte { return append(slices.Clone(b), make([]byte, 5<<20)...) },
	} {
		for _, victim := range []v1.Hash{layer.Digest, config, digest(t, img)} {
			src := from(t, img)
			src.open = func(d v1.Descriptor, offset int64, content []byte) (io.ReadCloser, error) {
				if d.Digest == victim {
					content = fault(content)
				}
				return io.NopCloser(bytes.NewReader(content[min(offset, int64(len(content))):])), nil
			}
			var wrong *layout.DigestError
			if _, err := s.Put(t.Context(), src, layout.PutOptions{Names: []string{alpine}}); !errors.As(err, &wrong) || wrong.Digest != victim {
				t.Errorf("%s for %s: %v", what, victim, err)
			}
			if _, err := s.Collect(t.Context()); err != nil { // what may be resumed
				t.Fatal(err)
			}
			if got := files(t, s); !slices.Equal(got, before) {
				t.Fatalf("%s left %v", what, got)
			}
		}
	}
	check(t, s)
}

func TestPutResumesAndReportsProgress(t *testing.T) {
	s := open(t, t.TempDir())
	img := image(t, "linux/amd64", 1, 6<<20)
	layer := layerOf(t, img)
	src := from(t, img)
	var offsets []int64
	src.open = func(d v1.Descriptor, offset int64, content []byte) (io.ReadCloser, error) {
		if d.Digest != layer.Digest {
			return io.NopCloser(bytes.NewReader(content)), nil
		}
		offsets = append(offsets, offset)
		switch len(offsets) {
		case 1:
			return broken(content, offset, 2<<20, io.EOF), nil // ends early: asked again at once
		case 2:
			return broken(content, offset, 3<<20, errNetwork), nil
		case 3:
			return nil, errNetwork // no progress: given up
		}
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	if _, err := s.Put(t.Context(), src, layout.PutOptions{Names: []string{alpine}}); !errors.Is(err, errNetwork) {
		t.Fatalf("a broken network: %v", err)
	}
	if got := names(t, s); len(got) != 0 {
		t.Fatalf("named %v", got)
	}
	var mu sync.Mutex
	calls := map[v1.Hash][]int64{}
	progress := func(d v1.Descriptor, written int64) {
		mu.Lock()
		defer mu.Unlock()
		calls[d.Digest] = append(calls[d.Digest], written)
	}
	o := layout.PutOptions{Names: []string{alpine}, Progress: progress}
	if _, err := s.Put(t.Context(), src, o); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	if want := []int64{0, 2 << 20, 3 << 20, 3 << 20}; !slices.Equal(offsets, want) {
		t.Errorf("asked from %v, want %v", offsets, want)
	}
	got := calls[layer.Digest]
	if got[0] != 3<<20 || got[len(got)-1] != layer.Size || !slices.IsSorted(got) {
		t.Errorf("progress %v of %d", got, layer.Size)
	}
	clear(calls)
	if _, err := s.Put(t.Context(), src, o); err != nil || !slices.Equal(calls[layer.Digest], []int64{layer.Size}) {
		t.Errorf("what is there: %v, %v", calls[layer.Digest], err)
	}

	m, err := find(t, s, alpine).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	clear(calls)
	fresh := open(t, t.TempDir())
	if _, err := fresh.Put(t.Context(), from(t, img), o); err != nil || !slices.Equal(calls[m.Config.Digest], []int64{0, m.Config.Size}) {
		t.Errorf("a small blob that is moved: %v, %v", calls[m.Config.Digest], err)
	}

	// What was left on disk isn't trusted: wrong bytes are fetched again.
	img = image(t, "linux/amd64", 1, 3<<20)
	layer = layerOf(t, img)
	left := filepath.Join(s.Dir(), ".ingest", "sha256-"+layer.Digest.Hex)
	if err := os.WriteFile(left, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, from(t, img), other)
	// Neither is a blob of the wrong size.
	if err := os.Truncate(s.BlobPath(layer.Digest), 77); err != nil {
		t.Fatal(err)
	}
	put(t, s, from(t, img), other)
	check(t, s)
}

// onDisk is a Source whose blobs are files.
type onDisk struct {
	*memory
	dir string
}

func (o onDisk) Path(d v1.Descriptor) (string, bool) {
	p := filepath.Join(o.dir, d.Digest.Hex)
	_, err := os.Stat(p)
	return p, err == nil
}

func TestAdoptLinksFiles(t *testing.T) {
	base := t.TempDir()
	s := open(t, filepath.Join(base, "store"))
	img := image(t, "linux/amd64", 2, 1000)
	src := onDisk{from(t, img), base}
	layer := layerOf(t, img)
	file := filepath.Join(base, layer.Digest.Hex)
	if err := os.WriteFile(file, src.blobs[layer.Digest], 0o600); err != nil {
		t.Fatal(err)
	}
	// A torn blob is in the way.
	if err := os.WriteFile(s.BlobPath(layer.Digest), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := s.Adopt(t.Context(), src, []string{alpine})
	if err != nil || d.Digest != digest(t, img) {
		t.Fatalf("%v, %v", d, err)
	}
	check(t, s)
	was, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if is, err := os.Stat(s.BlobPath(layer.Digest)); err != nil || !os.SameFile(was, is) {
		t.Errorf("the layer is a copy, %v", err)
	}
	if src.opened[layer.Digest] != 0 {
		t.Error("the layer was read")
	}
	// From one store to another; to a file of the wrong size the link is refused.
	second := open(t, filepath.Join(base, "second"))
	put(t, second, find(t, s, alpine), alpine)
	put(t, second, find(t, second, alpine), other) // onto itself
	check(t, second)
	if err := os.WriteFile(file, []byte("short"), 0o600); err == nil {
		if _, err := open(t, t.TempDir()).Adopt(t.Context(), src, nil); err != nil {
			t.Errorf("a file of the wrong size: %v", err)
		}
	}
}

func TestPutBoundsWhatManifestsSay(t *testing.T) {
	good := `{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}`
	hash := "sha256:" + strings.Repeat("ab", 32)
	layer := func(size string) string {
		return `{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":` + size + `,"digest":"` + hash + `"}`
	}
	for what, m := range map[string]struct {
		media types.MediaType
		raw   string
	}{
		"no JSON":           {types.OCIManifestSchema1, `<html>`},
		"null":              {types.OCIManifestSchema1, `null`},
		"no config":         {types.OCIManifestSchema1, `{"schemaVersion":2,"layers":[]}`},
		"both":              {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[],"manifests":[]}`},
		"an index as image": {types.OCIManifestSchema1, `{"schemaVersion":2,"manifests":[]}`},
		"an image as index": {types.OCIImageIndex, `{"schemaVersion":2,"config":` + good + `,"layers":[]}`},
		"a negative size":   {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[` + layer("-1") + `]}`},
		"no size":           {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[` + layer("0") + `]}`},
		"an immense size":   {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[` + layer("9223372036854775807") + `]}`},
		"two sizes":         {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[` + layer("5") + `,` + layer("6") + `]}`},
		"no digest":         {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[{"size":3}]}`},
		"a path as digest":  {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[{"size":3,"digest":"sha256:../../../etc/passwd"}]}`},
		"schema 1":          {types.DockerManifestSchema1Signed, `{"schemaVersion":1,"fsLayers":[]}`},
		"many blobs":        {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[` + strings.Repeat(layer("5")+",", 20_000) + layer("5") + `]}`},
		"huge":              {types.OCIManifestSchema1, `{"schemaVersion":2,"config":` + good + `,"layers":[]}` + strings.Repeat(" ", 4<<20)},
	} {
		src := &memory{blobs: map[v1.Hash][]byte{}, opened: map[v1.Hash]int{}}
		h := src.add(t, []byte(m.raw), nil)
		src.add(t, []byte("{}"), nil)
		src.root = v1.Descriptor{MediaType: m.media, Size: int64(len(m.raw)), Digest: h}
		s := open(t, t.TempDir())
		before := files(t, s)
		var bad *layout.InvalidError
		if _, err := s.Put(t.Context(), src, layout.PutOptions{Names: []string{alpine}}); !errors.As(err, &bad) {
			t.Errorf("%s: %v", what, err)
		}
		if after := files(t, s); !slices.Equal(before, after) {
			t.Errorf("%s left %v", what, after)
		}
	}
	s := open(t, t.TempDir())
	src := &memory{blobs: map[v1.Hash][]byte{}, opened: map[v1.Hash]int{}}
	d := v1.Descriptor{MediaType: types.OCIImageIndex}
	raw := `{"schemaVersion":2,"manifests":[]}`
	for range 12 { // an index in an index in an index
		d.Digest, d.Size = src.add(t, []byte(raw), nil), int64(len(raw))
		raw = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":` + itoa(d.Size) + `,"digest":"` + d.Digest.String() + `"}]}`
	}
	src.root = d
	var bad *layout.InvalidError
	if _, err := s.Put(t.Context(), src, layout.PutOptions{}); !errors.As(err, &bad) {
		t.Errorf("nested without end: %v", err)
	}
}

func TestPutTakesDataAndEmptyBlobs(t *testing.T) {
	s := open(t, t.TempDir())
	src := &memory{blobs: map[v1.Hash][]byte{}, opened: map[v1.Hash]int{}}
	nothing := src.add(t, nil, nil)
	inline := v1.Hash{Algorithm: "sha256", Hex: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"} // of {}
	raw := `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"` + inline.String() + `","data":"e30="},"layers":[{"mediaType":"text/plain","size":0,"digest":"` + nothing.String() + `"}]}`
	h := src.add(t, []byte(raw), nil)
	src.root = v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(raw)), Digest: h}
	put(t, s, src, "artifact")
	if src.opened[inline] != 0 {
		t.Error("what the manifest holds was fetched")
	}
	checkBlobs(t, s)
	if got := load(t, open(t, t.TempDir()), save(t, s, "artifact")); len(got) != 1 || got[0].Descriptor().Digest != h {
		t.Errorf("an artifact through an archive: %v", got)
	}
}

func TestAnIndexMayHideBehindNoType(t *testing.T) {
	s := open(t, t.TempDir())
	src := &memory{blobs: map[v1.Hash][]byte{}, opened: map[v1.Hash]int{}}
	raw := `{"schemaVersion":2,"manifests":[]}`
	for range 2 {
		src.root = v1.Descriptor{MediaType: types.OCIImageIndex, Digest: src.add(t, []byte(raw), nil), Size: int64(len(raw))}
		raw = `{"schemaVersion":2,"manifests":[{"size":` + itoa(src.root.Size) + `,"digest":"` + src.root.Digest.String() + `","platform":{"os":"linux","architecture":"amd64"}}]}`
	}
	img := put(t, s, src, "odd")
	if infos, err := img.Platforms(); err != nil || len(infos) != 1 {
		t.Errorf("platforms %+v, %v", infos, err)
	}
	if _, err := img.Best(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an index as the best image: %v", err)
	}
	if _, err := s.Collect(t.Context()); err != nil {
		t.Error(err)
	}
}
