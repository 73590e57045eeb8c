package layout_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/wherry-oci/wherry/layout"
)

func TestHostileArchivesChangeNothing(t *testing.T) {
	good := filesOf(t, dockerArchive(t, map[string]v1.Image{"one": fixed(t, "linux/amd64", "1"), "two": fixed(t, "linux/amd64", "2")}))
	img := image(t, "linux/amd64", 2, 1000)
	oci := filesOf(t, ociArchive(t, func(p ggcr.Path) error { return p.AppendImage(img) }))
	layer := "./blobs/sha256/" + layerOf(t, img).Digest.Hex
	with := func(list []file, more ...file) []file { return append(slices.Clone(list), more...) }
	change := func(list []file, name string, f func(string) string) []file {
		list = slices.Clone(list)
		for n := range list {
			if list[n].name == name {
				list[n].body = f(list[n].body)
			}
		}
		return list
	}
	without := func(list []file, match func(string) bool) []file {
		return slices.DeleteFunc(slices.Clone(list), func(f file) bool { return match(f.name) })
	}
	isLayer := func(name string) bool { return strings.HasSuffix(name, ".tar") }
	manifest := func(s string) []file { return []file{{name: "manifest.json", body: s}} }
	whole := archiveOf(t, good...)
	claim := archiveOf(t, file{name: "x", body: strings.Repeat("x", 600)})
	copy(claim[124:136], "77777777777\x00") // 8 GiB
	copy(claim[148:156], fmt.Sprintf("%06o\x00 ", checksum(claim[:512])))

	for what, bad := range map[string][]byte{
		"nothing":                 {},
		"zeros":                   make([]byte, 4096),
		"no tar":                  []byte(strings.Repeat("no tar ", 1000)),
		"no image":                archiveOf(t, file{name: "README", body: "hello"}),
		"cut in a header":         whole[:700],
		"cut in a file":           whole[:len(whole)/2],
		"a size that isn't there": claim,
		"something behind":        append(slices.Clone(whole), "behind"...),
		"traversal":               archiveOf(t, with(good, file{name: "../../etc/passwd", body: "x"})...),
		"inner traversal":         archiveOf(t, with(good, file{name: "a/../../b", body: "x"})...),
		"an absolute name":        archiveOf(t, with(good, file{name: "/etc/passwd", body: "x"})...),
		"an absolute link":        archiveOf(t, with(good, file{name: "l", kind: tar.TypeSymlink, link: "/etc/passwd"})...),
		"a link out":              archiveOf(t, with(good, file{name: "l", kind: tar.TypeSymlink, link: "../x"})...),
		"a hard link out":         archiveOf(t, with(good, file{name: "l", kind: tar.TypeLink, link: "../x"})...),
		"a config that's a loop": archiveOf(t, file{name: "manifest.json", body: `[{"Config":"a","Layers":[]}]`},
			file{name: "a", kind: tar.TypeSymlink, link: "b"}, file{name: "b", kind: tar.TypeSymlink, link: "a"}),
		"a path out in manifest.json": archiveOf(t, manifest(`[{"Config":"../../etc/passwd","Layers":[]}]`)...),
		"two manifest.json":           archiveOf(t, with(good, file{name: "manifest.json", body: "[]"})...),
		"a file and a link":           archiveOf(t, with(good, file{name: "manifest.json", kind: tar.TypeSymlink, link: "x"})...),
		"an empty manifest.json":      archiveOf(t, manifest(`[]`)...),
		"odd JSON":                    archiveOf(t, manifest(`[{"Config":7}]`)...),
		"nested JSON":                 archiveOf(t, manifest(strings.Repeat("[", 1<<20))...),
		"no config":                   archiveOf(t, manifest(`[{"Config":"gone","Layers":[]}]`)...),
		"a config that is none":       archiveOf(t, with(manifest(`[{"Config":"c","Layers":[]}]`), file{name: "c", body: "\x7fELF"})...),
		"fewer layers":                archiveOf(t, without(good, isLayer)...),
		"an invalid name":             archiveOf(t, change(good, "manifest.json", func(s string) string { return strings.Replace(s, `"one:latest"`, `"One\u001b[31m"`, 1) })...),
		"another image's layer":       archiveOf(t, swapped(t, good)...),
		"layers that don't fit":       archiveOf(t, with(manifest(`[{"Config":"c","Layers":["l"]}]`), file{name: "c", body: `{"rootfs":{"diff_ids":[]}}`}, file{name: "l", body: "x"})...),
		"an xz layer": archiveOf(t, with(manifest(`[{"Config":"c","Layers":["l"]}]`), file{name: "c", body: `{"rootfs":{"diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]}}`},
			file{name: "l", body: "\xfd7zXZ\x00 and more"})...),
		"an OCI blob that lies": archiveOf(t, change(oci, layer, func(s string) string { return string(flip([]byte(s), len(s)/2)) })...),
		"an OCI blob too short": archiveOf(t, change(oci, layer, func(s string) string { return s[1:] })...),
		"an OCI blob missing":   archiveOf(t, without(oci, func(n string) bool { return n == layer })...),
		"only an index":         archiveOf(t, without(oci, func(n string) bool { return strings.Contains(n, "blobs") })...),
		"an index of nothing":   archiveOf(t, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[]}`}),
		"a strange descriptor":  archiveOf(t, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[{"size":-5,"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`}),
		"a legacy loop":         archiveOf(t, legacyPair("aa", "bb")...),
		"a legacy parent gone":  archiveOf(t, legacyPair("cc", "")...),
		"names of nobody":       archiveOf(t, file{name: "repositories", body: `{"a":{"b":"c"}}`}),
		"a name of another hash": archiveOf(t, change(oci, "./index.json", func(s string) string {
			return strings.Replace(s, `"digest"`, `"annotations":{"io.containerd.image.name":"a@sha256:`+strings.Repeat("1", 64)+`"},"digest"`, 1)
		})...),
	} {
		s := open(t, t.TempDir())
		put(t, s, from(t, image(t, "linux/amd64", 1, 10)), alpine)
		before := files(t, s)
		images, err := s.Load(t.Context(), bytes.NewReader(bad), layout.LoadOptions{})
		if err == nil {
			t.Errorf("%s was loaded: %v", what, names(t, s))
			continue
		}
		if after := files(t, s); !slices.Equal(before, after) || images != nil {
			t.Errorf("%s left %v", what, after)
		}
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%s: control characters in %q", what, err)
		}
		t.Logf("%s: %v", what, err)
	}
}

// swapped gives each image of a docker archive the other's layer.
func swapped(t *testing.T, good []file) []file {
	t.Helper()
	items := dockerManifest(t, archiveOf(t, good...))
	a, b := items[0].Layers[0], items[1].Layers[0]
	list := slices.Clone(good)
	for n := range list {
		switch list[n].name {
		case a:
			list[n].name = b
		case b:
			list[n].name = a
		}
	}
	return list
}

func legacyPair(first, second string) []file {
	return []file{
		{name: "repositories", body: `{"a":{"b":"aa"}}`},
		{name: "aa/json", body: `{"id":"aa","parent":"bb","top":"` + second + `"}`},
		{name: "aa/layer.tar", body: "1"},
		{name: first + "/../bb/json", body: `{"id":"bb","parent":"` + first + `"}`},
		{name: "bb/layer.tar", body: "2"},
	}
}

func checksum(header []byte) (sum int) {
	for n, b := range header {
		if n >= 148 && n < 156 {
			b = ' '
		}
		sum += int(b)
	}
	return sum
}

func TestLoadSaysWhoFailed(t *testing.T) {
	s := open(t, t.TempDir())
	whole := dockerArchive(t, map[string]v1.Image{"one": fixed(t, "linux/amd64", "1")})
	_, err := s.Load(t.Context(), io.MultiReader(bytes.NewReader(whole[:2000]), failing{errNetwork}), layout.LoadOptions{})
	if !errors.Is(err, errNetwork) {
		t.Errorf("a reader that fails: %v", err)
	}
	var bad *layout.InvalidError
	if _, err := s.Load(t.Context(), bytes.NewReader(whole[:2000]), layout.LoadOptions{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("an archive cut short: %v", err)
	}
	if left := files(t, s); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func TestABlobMayBeInTheStoreInsteadOfTheArchive(t *testing.T) {
	a, b := open(t, t.TempDir()), open(t, t.TempDir())
	img := image(t, "linux/amd64", 2, 1000)
	put(t, a, from(t, img), "app:1")
	layer := layerOf(t, img).Digest.Hex
	lean := slices.DeleteFunc(filesOf(t, save(t, a, "app:1")), func(f file) bool { return strings.HasSuffix(f.name, layer) })
	var missing *layout.MissingError
	if _, err := b.Load(t.Context(), bytes.NewReader(archiveOf(t, lean...)), layout.LoadOptions{}); !errors.As(err, &missing) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a blob that is nowhere: %v", err)
	}
	put(t, b, from(t, img))
	load(t, b, archiveOf(t, lean...))
	check(t, b)
}

func FuzzLoad(f *testing.F) {
	img := fixed(f, "linux/amd64", "1")
	docker := dockerArchive(f, map[string]v1.Image{"one": img})
	f.Add(docker)
	f.Add(ociArchive(f, func(p ggcr.Path) error { return p.AppendImage(img) }))
	f.Add(archiveOf(f, legacyPair("", "")...))
	for _, pack := range packers() {
		f.Add(pack(f, docker))
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		s := open(t, t.TempDir())
		before := files(t, s)
		_, err := s.Load(t.Context(), bytes.NewReader(archive), layout.LoadOptions{})
		if err != nil && !slices.Equal(before, files(t, s)) {
			t.Errorf("%v, and the store has %v", err, files(t, s))
		}
		checkBlobs(t, s)
		if _, err := s.Collect(t.Context()); err != nil {
			t.Errorf("what was loaded can't be judged: %v", err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,"digest":"sha256:` + strings.Repeat("ab", 32) + `","annotations":{"org.opencontainers.image.ref.name":"a:b"}}]}`))
	f.Add([]byte(`{"manifests":[{"annotations":null},{"digest":"x"},{}]}`))
	f.Add([]byte(`{"manifests":null}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := open(t, t.TempDir())
		img := from(t, fixed(t, "linux/amd64", "1"))
		put(t, s, img)
		if err := os.WriteFile(filepath.Join(s.Dir(), "index.json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := s.List()
		for _, i := range before {
			_, _, _ = i.Size(), i.Created(), i.Name()
		}
		_, _ = s.Find("ab")
		if _, perr := s.Put(t.Context(), img, layout.PutOptions{Names: []string{alpine}}); perr != nil {
			return
		}
		if err != nil {
			t.Fatalf("could be written, not read: %v", err)
		}
		after, err := s.List()
		if err != nil || len(after) < len(before) {
			t.Errorf("%d entries became %d, %v", len(before), len(after), err)
		}
		find(t, s, alpine)
	})
}

// FuzzDocuments puts texts where an archive has JSON: whatever they say, it is
// refused and leaves nothing, or the store is whole afterwards and can be read.
func FuzzDocuments(f *testing.F) {
	img := fixed(f, "linux/amd64", "1")
	body := func(list []file, name string) string {
		n := slices.IndexFunc(list, func(f file) bool { return strings.TrimPrefix(f.name, "./") == name })
		if n < 0 {
			return ""
		}
		return list[n].body
	}
	docker := dockerManifest(f, dockerArchive(f, map[string]v1.Image{"one": img}))[0]
	config, err := img.RawConfigFile()
	if err != nil {
		f.Fatal(err)
	}
	oci := filesOf(f, ociArchive(f, func(p ggcr.Path) error { return p.AppendImage(img) }))
	manifest := fmt.Sprintf(`[{"Config":"c","RepoTags":["one:1"],"Layers":["l"%s]}]`, strings.Repeat(`,"l"`, len(docker.Layers)-1))
	f.Add("", manifest, "", string(config), `{"id":"aa"}`)
	f.Add(body(oci, "index.json"), "", "", string(config), "")
	f.Add(body(oci, "index.json"), manifest, "", string(config), "")
	f.Add("", "", `{"a":{"b":"v"}}`, "{}", `{"id":"v","parent":"","created":"2015-10-31T22:22:56.015925234Z","container_config":{"Cmd":["x"]},"config":{}}`)
	layer := layerOf(f, img)
	f.Fuzz(func(t *testing.T, index, manifest, repositories, config, legacy string) {
		list := []file{{name: "c", body: config}, {name: "v/json", body: legacy}, {name: "v/layer.tar", body: "x"}}
		for name, text := range map[string]string{"index.json": index, "manifest.json": manifest, "repositories": repositories} {
			if text != "" {
				list = append(list, file{name: name, body: text})
			}
		}
		for _, f := range oci {
			if strings.Contains(f.name, "blobs/") {
				list = append(list, f)
			}
			if strings.HasSuffix(f.name, layer.Digest.Hex) {
				list = append(list, file{name: "l", body: f.body})
			}
		}
		s := open(t, t.TempDir())
		before := files(t, s)
		_, err := s.Load(t.Context(), bytes.NewReader(archiveOf(t, list...)), layout.LoadOptions{})
		if err != nil && !slices.Equal(before, files(t, s)) {
			t.Errorf("%v left %v", err, files(t, s))
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("control characters in %q", err)
		}
		checkBlobs(t, s)
		all, err := s.List()
		if err != nil {
			t.Error(err)
		}
		for _, i := range all {
			_, _ = i.Size(), i.Created()
			_, _ = i.Platforms()
			_, _ = i.Best()
		}
		if _, err := s.Collect(t.Context()); err != nil {
			t.Errorf("what was loaded can't be judged: %v", err)
		}
	})
}
