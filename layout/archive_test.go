package layout_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

// file is one entry of an archive made by hand.
type file struct {
	name, body, link string
	kind             byte // a file, or a link
}

func archiveOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Linkname: f.link, Size: int64(len(f.body)), Mode: 0o644}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func filesOf(t testing.TB, archive []byte) []file {
	t.Helper()
	var list []file
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, file{h.Name, string(body), h.Linkname, h.Typeflag})
	}
}

// ociArchive packs up a layout that ggcr writes.
func ociArchive(t testing.TB, fill func(ggcr.Path) error) []byte {
	t.Helper()
	dir := t.TempDir()
	p, err := ggcr.Write(dir, empty.Index)
	if err == nil {
		err = fill(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		files = append(files, file{name: "./" + filepath.ToSlash(rel), body: string(raw)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return archiveOf(t, files...)
}

func dockerArchive(t testing.TB, images map[string]v1.Image) []byte {
	t.Helper()
	refs := map[name.Reference]v1.Image{}
	for n, img := range images {
		ref, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		refs[ref] = img
	}
	var b bytes.Buffer
	if err := tarball.MultiRefWrite(refs, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t testing.TB, s *layout.Store, refs ...string) []byte {
	t.Helper()
	var images []*layout.Image
	for _, r := range refs {
		found, err := s.Find(r)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, found...)
	}
	var b bytes.Buffer
	if err := s.Save(t.Context(), &b, images, layout.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func load(t testing.TB, s *layout.Store, archive []byte) []*layout.Image {
	t.Helper()
	images, err := s.Load(t.Context(), bytes.NewReader(archive), layout.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// fixed is an image that is the same in every run.
func fixed(t testing.TB, p string, bodies ...string) v1.Image {
	t.Helper()
	img := empty.Image
	for _, b := range bodies {
		layer := archiveOf(t, file{name: "etc/motd", body: b})
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer(layer, types.OCIUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	return dress(t, img, p)
}

func TestSaveAndLoadKeepEverythingAndAreDeterministic(t *testing.T) {
	a, b := open(t, t.TempDir()), open(t, t.TempDir())
	x, images := index(t, "linux/amd64", "linux/arm64")
	single := image(t, "linux/amd64", 3, 2<<20)
	put(t, a, from(t, x), alpine, other)
	put(t, a, from(t, single), "single")
	first := save(t, a, "single", "alpine:3.20", other)
	loaded := load(t, b, first)
	got := map[string]v1.Hash{}
	for _, i := range loaded {
		got[i.Name()] = i.Descriptor().Digest
	}
	want := map[string]v1.Hash{alpine: digest(t, x), other: digest(t, x), "docker.io/library/single:latest": digest(t, single)}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("loaded %v, want %v", got, want)
	}
	check(t, b)
	if second := save(t, b, other, "single", "alpine:3.20", "single"); !bytes.Equal(first, second) {
		t.Error("the second archive differs from the first")
	}
	if left := files(t, b); slices.ContainsFunc(left, func(f string) bool { return strings.Contains(f, "ingest") }) {
		t.Errorf("left behind: %v", left)
	}

	arm64, _ := platform.Parse("arm64")
	var part bytes.Buffer
	if err := b.Save(t.Context(), &part, []*layout.Image{find(t, b, "alpine:3.20")}, layout.SaveOptions{Platforms: []v1.Platform{arm64}}); err != nil {
		t.Fatal(err)
	}
	c := open(t, t.TempDir())
	img := load(t, c, part.Bytes())[0]
	if child, err := img.Best(); err != nil || child.Descriptor().Digest != digest(t, images[1]) || img.Descriptor().Digest != digest(t, x) {
		t.Errorf("one platform of an index: %+v, %v", child, err)
	}
	if sparse := save(t, c, "alpine:3.20"); !bytes.Equal(sparse, part.Bytes()) {
		t.Error("a sparse index is saved differently")
	}
	byID := save(t, c, "alpine:3.20")
	if err := a.Save(t.Context(), io.Discard, []*layout.Image{img}, layout.SaveOptions{}); err != nil || len(byID) == 0 {
		t.Errorf("an image of another store: %v", err)
	}
}

func TestSavedBytesNeverChange(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, from(t, fixed(t, "linux/amd64", "hello", "world")), alpine)
	put(t, s, from(t, fixed(t, "linux/arm64", "hello")), "other")
	archive := save(t, s, "alpine:3.20", "other")
	const golden = "6dd1e3f4d0d974083fc1bd3b19cb989b014c76d6e66b0849c6f994d3108a99bc"
	if got := fmt.Sprintf("%x", sha256.Sum256(archive)); got != golden {
		for _, f := range filesOf(t, archive) {
			t.Logf("%c %s %q", f.kind, f.name, f.body[:min(200, len(f.body))])
		}
		t.Errorf("the archive is %s, was %s", got, golden)
	}
}

func TestLoadDockerArchives(t *testing.T) {
	one, two := fixed(t, "linux/amd64", "a", "b"), image(t, "linux/arm64", 2, 100) // the second has gzip layers
	archive := dockerArchive(t, map[string]v1.Image{"alpine:3.20": one, "registry.example/team/app:v1": one, "two": two})
	s := open(t, t.TempDir())
	images := load(t, s, archive)
	if len(images) != 3 {
		t.Fatalf("loaded %v", names(t, s))
	}
	check(t, s)
	for ref, img := range map[string]v1.Image{"alpine:3.20": one, other: one, "two": two} {
		config, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		m, err := find(t, s, ref).Manifest()
		if err != nil || m.Config.Digest != config {
			t.Errorf("%s: config %v, want %s, %v", ref, m, config, err)
		}
		if by := find(t, s, config.String()); by.Descriptor().Digest != find(t, s, ref).Descriptor().Digest {
			t.Errorf("%s isn't found by its config", ref)
		}
	}
	again := open(t, t.TempDir())
	load(t, again, save(t, s, "alpine:3.20", other, "two"))
	if a, b := find(t, s, "two").Descriptor().Digest, find(t, again, "two").Descriptor().Digest; a != b {
		t.Errorf("%s became %s", a, b)
	}

	shuffled := filesOf(t, archive)
	slices.Reverse(shuffled)
	for n := range shuffled {
		shuffled[n].name = "./" + shuffled[n].name
	}
	shuffled = append(shuffled, file{name: "./odd/", kind: tar.TypeDir}, file{name: "odd/fifo", kind: tar.TypeFifo})
	third := open(t, t.TempDir())
	load(t, third, archiveOf(t, shuffled...))
	if a, b := find(t, s, "two").Descriptor(), find(t, third, "two").Descriptor(); a.Digest != b.Digest {
		t.Errorf("%s became %s in another order", a.Digest, b.Digest)
	}
}

func TestLoadLayersThatAreLinks(t *testing.T) {
	layer := string(archiveOf(t, file{name: "x", body: "y"}))
	diff, _, err := v1.SHA256(strings.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%[1]s","%[1]s","%[1]s"]}}`, diff)
	s := open(t, t.TempDir())
	img := load(t, s, archiveOf(t,
		file{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":null,"Layers":["b/layer.tar","c/layer.tar","a/layer.tar"]}]`},
		file{name: "b/layer.tar", kind: tar.TypeSymlink, link: "../c/layer.tar"},
		file{name: "c/layer.tar", kind: tar.TypeLink, link: "./a/layer.tar"},
		file{name: "a/layer.tar", body: layer}, file{name: "a/VERSION", body: "1.0"}, file{name: "c.json", body: config},
	))[0]
	if got := names(t, s); !slices.Equal(got, []string{"<none>"}) || img.Name() != "" {
		t.Errorf("loaded %v", got)
	}
	if m, err := img.Manifest(); err != nil || len(m.Layers) != 3 || m.Layers[2].Digest != diff {
		t.Errorf("manifest %+v, %v", m, err)
	}
	if left := files(t, s); len(left) != 5 { // marker, index, manifest, config, layer
		t.Errorf("the store has %v", left)
	}
}

func TestLoadLegacyArchives(t *testing.T) {
	lower, upper := archiveOf(t, file{name: "a", body: "1"}), archiveOf(t, file{name: "b", body: "2"})
	files := []file{
		{name: "repositories", body: `{"busybox":{"latest":"bb","1.9":"bb"}}`},
		{name: "bb/", kind: tar.TypeDir},
		{name: "bb/VERSION", body: "1.0"},
		{name: "bb/json", body: `{"id":"bb","parent":"aa","created":"2015-10-31T22:22:56.015925234Z","container_config":{"Cmd":["/bin/sh","-c","#(nop) CMD"]},"docker_version":"1.8.3","config":{"Cmd":["sh"]},"architecture":"amd64","os":"linux","Size":0}`},
		{name: "bb/layer.tar", body: string(upper)},
		{name: "aa/json", body: `{"id":"aa","created":"2015-10-31T22:22:54.690851953Z","container_config":{"Cmd":["ADD"]},"author":"me","architecture":"amd64","os":"linux","Size":1}`},
		{name: "aa/layer.tar", body: string(lower)},
	}
	s := open(t, t.TempDir())
	images := load(t, s, archiveOf(t, files...))
	if got := names(t, s); !slices.Equal(got, []string{"docker.io/library/busybox:1.9", "docker.io/library/busybox:latest"}) || len(images) != 2 {
		t.Errorf("loaded %v", got)
	}
	check(t, s)
	raw, err := images[0].RawConfig()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"architecture":"amd64","config":{"Cmd":["sh"]},"container_config":{"Cmd":["/bin/sh","-c","#(nop) CMD"]},"created":"2015-10-31T22:22:56.015925234Z","docker_version":"1.8.3",` +
		`"history":[{"created":"2015-10-31T22:22:54.690851953Z","author":"me","created_by":"ADD"},{"created":"2015-10-31T22:22:56.015925234Z","created_by":"/bin/sh -c #(nop) CMD"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x","sha256:%x"]}}`
	if want := fmt.Sprintf(want, sha256.Sum256(lower), sha256.Sum256(upper)); string(raw) != want {
		t.Errorf("config\n%s, want\n%s", raw, want)
	}
	files[0] = file{name: "nothing", body: "here"}
	if images := load(t, open(t, t.TempDir()), archiveOf(t, files...)); len(images) != 1 || images[0].Name() != "" {
		t.Errorf("without names: %d images", len(images))
	}
}

func TestLoadOCIArchives(t *testing.T) {
	x, images := index(t, "linux/amd64", "linux/arm64")
	one := image(t, "linux/amd64", 1, 100)
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: x})
	archive := ociArchive(t, func(p ggcr.Path) error {
		for ref, img := range map[string]v1.Image{"latest": images[0], "quay.io/a/b:1": one} {
			if err := p.AppendImage(img, ggcr.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref})); err != nil {
				return err
			}
		}
		return p.AppendIndex(nested, ggcr.WithAnnotations(map[string]string{"io.containerd.image.name": alpine, "org.opencontainers.image.ref.name": "3.20"}))
	})
	s := open(t, t.TempDir())
	if loaded := load(t, s, archive); len(loaded) != 3 {
		t.Errorf("loaded %d images", len(loaded))
	}
	got := names(t, s)
	slices.Sort(got)
	if !slices.Equal(got, []string{"<none>", alpine, "quay.io/a/b:1"}) {
		t.Errorf("loaded %v", got)
	}
	check(t, s)
	arm64, _ := platform.Parse("arm64")
	if child, err := find(t, s, "alpine:3.20").Select(arm64); err != nil || child.Descriptor().Digest != digest(t, images[1]) {
		t.Errorf("through a nested index: %v", err)
	}
	if infos, err := find(t, s, "alpine:3.20").Platforms(); err != nil || len(infos) != 2 || !infos[0].Present || !infos[1].Present {
		t.Errorf("platforms %+v, %v", infos, err)
	}
	lean := open(t, t.TempDir())
	_, err := lean.Load(t.Context(), bytes.NewReader(archive), layout.LoadOptions{Platforms: []v1.Platform{arm64}})
	if err == nil || len(names(t, lean)) != 0 {
		t.Errorf("an archive of amd64 images, for arm64: %v", err)
	}
}

// dockerManifest decodes the manifest.json of an archive.
func dockerManifest(t testing.TB, archive []byte) []struct {
	Config           string
	RepoTags, Layers []string
} {
	t.Helper()
	var items []struct {
		Config           string
		RepoTags, Layers []string
	}
	for _, f := range filesOf(t, archive) {
		if f.name == "manifest.json" {
			if err := json.Unmarshal([]byte(f.body), &items); err != nil {
				t.Fatal(err)
			}
		}
	}
	return items
}

func TestSavedArchiveIsDockersToo(t *testing.T) {
	s := open(t, t.TempDir())
	x, images := index(t, "linux/s390x", "linux/amd64", "linux/arm64")
	put(t, s, from(t, x), alpine, other)
	archive := save(t, s, "alpine:3.20", other)
	items := dockerManifest(t, archive)
	if len(items) != 1 || !slices.Equal(items[0].RepoTags, []string{alpine, other}) {
		t.Fatalf("manifest.json is %+v", items)
	}
	amd64, _ := platform.Parse("linux/amd64") // whatever this machine is
	host, err := find(t, s, "alpine:3.20").Select(amd64)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want, err := host.RawConfig()
	if err != nil || !bytes.Equal(config, want) || len(images) != 3 {
		t.Errorf("ggcr reads %s, want %s", config, want)
	}
}
