package layout_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
)

// raw is one entry of an archive with a header that no library of today writes.
type raw struct {
	name, body string
	kind       byte   // type flag; 0 is what v7 wrote
	magic      string // "" for v7
	base256    bool   // the size as GNU's tar writes large ones
	size       int    // what the header says; -1 for 0, 0 for what is true
}

func rawTar(entries ...raw) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		h := make([]byte, 512)
		copy(h, e.name)
		size := len(e.body)
		if e.size != 0 {
			size = max(e.size, 0)
		}
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o ", size)) // older ones end numbers with a blank
		if e.base256 {
			copy(h[124:136], make([]byte, 12))
			h[124], h[133], h[134], h[135] = 0x80, byte(size>>16), byte(size>>8), byte(size)
		}
		copy(h[136:], "00000000000 ")
		h[156] = e.kind
		copy(h[257:], e.magic)
		copy(h[148:], fmt.Sprintf("%06o\x00 ", checksum(h)))
		b.Write(h)
		b.WriteString(e.body)
		b.Write(make([]byte, -len(e.body)&511))
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func paxRecord(key, value string) string {
	for n := len(key) + len(value) + 3; ; n++ {
		if s := fmt.Sprintf("%d %s=%s\n", n, key, value); len(s) == n {
			return s
		}
	}
}

// dockerFiles is an image as docker saves it, with a layer that is read beside others.
func dockerFiles(t *testing.T) ([]file, v1.Hash) {
	t.Helper()
	img := fixed(t, "linux/amd64", "small", strings.Repeat("large", 300_000))
	files := filesOf(t, dockerArchive(t, map[string]v1.Image{"odd:1": img}))
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return files, config
}

const (
	ustar    = "ustar\x0000"
	gnuMagic = "ustar  \x00"
)

func TestLoadReadsEveryKindOfTar(t *testing.T) {
	files, config := dockerFiles(t)
	each := func(f func(file) []raw) []byte {
		var entries []raw
		for _, one := range files {
			entries = append(entries, f(one)...)
		}
		return rawTar(entries...)
	}
	long := strings.Repeat("long/", 30)
	moved := slices.Clone(files)
	slices.Reverse(moved)
	for n := range moved {
		moved[n].name = strings.ReplaceAll(moved[n].name, "sha256:", long)
		moved[n].body = strings.ReplaceAll(moved[n].body, `"Config":"sha256:`, `"Config":"`+long)
	}
	normal := archiveOf(t, files...)
	for what, archive := range map[string][]byte{
		"v7":    each(func(f file) []raw { return []raw{{name: "./" + f.name, body: f.body}} }),
		"ustar": each(func(f file) []raw { return []raw{{name: f.name, body: f.body, kind: '0', magic: ustar}} }),
		"GNU, base 256": each(func(f file) []raw {
			return []raw{{name: f.name, body: f.body, kind: '0', magic: gnuMagic, base256: true}}
		}),
		"contiguous files": each(func(f file) []raw { return []raw{{name: f.name, body: f.body, kind: '7', magic: ustar}} }),
		"GNU long names": each(func(f file) []raw {
			return []raw{{name: "././@LongLink", body: f.name + "\x00", kind: 'L', magic: gnuMagic}, {name: "cut", body: f.body, kind: '0', magic: gnuMagic}}
		}),
		"PAX, name and size":   each(paxFile),
		"a global PAX header":  rawTar(append([]raw{{name: "pax_global_header", body: paxRecord("comment", "of git"), kind: 'g', magic: ustar}}, plainFiles(files)...)...),
		"folders, devices":     archiveOf(t, append([]file{{name: "./", kind: tar.TypeDir}, {name: "dev/null", kind: tar.TypeChar}, {name: "fifo", kind: tar.TypeFifo}}, files...)...),
		"padded":               append(slices.Clone(normal), make([]byte, 10240)...),
		"one block at the end": normal[:len(normal)-512],
		"long, backwards":      archiveOf(t, moved...),
	} {
		loadsAs(t, what, archive, config)
	}
	for _, program := range [][]string{
		{"tar", "--format=v7"},
		{"tar", "--format=oldgnu", "-S"},
		{"tar", "--format=gnu", "-S"},
		{"tar", "--format=ustar"},
		{"tar", "--format=posix"},
		{"tar", "--format=posix", "-S"},
		{"tar", "--format=posix", "-S", "--sparse-version=0.1"},
		{"tar", "-b1"},
		{"bsdtar", "--format=pax"},
		{"bsdtar", "--format=gnutar"},
		{"bsdtar", "--format=ustar"},
		{"busybox", "tar"},
	} {
		if archive := packedBy(t, files, program); archive != nil {
			loadsAs(t, strings.Join(program, " "), archive, config)
		}
	}
}

func plainFiles(files []file) (list []raw) {
	for _, f := range files {
		list = append(list, raw{name: f.name, body: f.body, kind: '0', magic: ustar})
	}
	return list
}

// paxFile has neither name nor size but in its extended header.
func paxFile(f file) []raw {
	records := paxRecord("path", f.name) + paxRecord("size", itoa(int64(len(f.body)))) + paxRecord("mtime", "1.5") + paxRecord("VENDOR.key", "x")
	return []raw{{name: "PaxHeaders/x", body: records, kind: 'x', magic: ustar}, {name: "x", body: f.body, kind: '0', magic: ustar, size: -1}}
}

// packedBy is what a program makes of the files; nil where there is no such program.
func packedBy(t *testing.T, files []file, program []string) []byte {
	t.Helper()
	if _, err := exec.LookPath(program[0]); err != nil {
		return nil
	}
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.body), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.name, ".tar.gz") { // holes, so that there is something to be sparse about
			_ = exec.CommandContext(t.Context(), "fallocate", "-d", path).Run()
		}
	}
	args := slices.Concat(program[1:], []string{"-cf", "-", "-C", dir, "."})
	if program[0] == "busybox" {
		args = []string{"tar", "-c", "-f", "-", "-C", dir, "."}
	}
	cmd := exec.CommandContext(t.Context(), program[0], args...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", program, err)
	}
	return out
}

// loadsAs requires that an archive is the image with this config, read as a
// stream and at will.
func loadsAs(t *testing.T, what string, archive []byte, config v1.Hash) {
	t.Helper()
	for _, r := range []io.Reader{bytes.NewReader(archive), struct{ io.Reader }{bytes.NewReader(archive)}} {
		s := open(t, t.TempDir())
		images, err := s.Load(t.Context(), r, layout.LoadOptions{})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		checkBlobs(t, s)
		m, err := images[0].Manifest()
		if err != nil || m.Config.Digest != config || len(images) != 1 || images[0].Name() != "docker.io/library/odd:1" {
			t.Errorf("%s: %d images, %q, %v", what, len(images), images[0].Name(), err)
		}
	}
}

// blobs of an OCI archive, and its index.json.
type ociFiles struct {
	files []file
	index v1.IndexManifest
}

func (o *ociFiles) add(t *testing.T, mediaType types.MediaType, body any) v1.Descriptor {
	t.Helper()
	text, ok := body.(string)
	if !ok {
		encoded, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(encoded)
	}
	h, n, err := v1.SHA256(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	o.files = append(o.files, file{name: "blobs/sha256/" + h.Hex, body: text})
	return v1.Descriptor{MediaType: mediaType, Digest: h, Size: n}
}

// without moves a blob from the archive into its descriptor.
func (o *ociFiles) embed(d v1.Descriptor) v1.Descriptor {
	at := slices.IndexFunc(o.files, func(f file) bool { return strings.HasSuffix(f.name, d.Digest.Hex) })
	d.Data = []byte(o.files[at].body)
	o.files = slices.Delete(o.files, at, at+1)
	return d
}

func (o *ociFiles) archive(t *testing.T) []byte {
	t.Helper()
	x, err := json.Marshal(o.index)
	if err != nil {
		t.Fatal(err)
	}
	return archiveOf(t, append(slices.Clone(o.files), file{name: "index.json", body: string(x)}, file{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`})...)
}

func TestLoadTakesOddOCIArchives(t *testing.T) {
	const configJSON = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]}}`
	named := func(d v1.Descriptor, ref string) v1.Descriptor {
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": ref}
		return d
	}
	for what, c := range map[string]struct {
		fill  func(*ociFiles) []v1.Descriptor
		names []string
	}{
		"everything in data fields": {func(o *ociFiles) []v1.Descriptor {
			config, layer := o.embed(o.add(t, types.OCIConfigJSON, configJSON)), o.embed(o.add(t, types.OCIUncompressedLayer, "abc"))
			m := o.embed(o.add(t, types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{layer}}))
			x := o.add(t, types.OCIImageIndex, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{m}})
			return []v1.Descriptor{named(o.embed(x), "a.example/data:1")}
		}, []string{"a.example/data:1"}},
		"data that lies, beside the blob": {func(o *ociFiles) []v1.Descriptor {
			config := o.add(t, types.OCIConfigJSON, configJSON)
			config.Data = []byte("another config, or none")
			m := o.add(t, types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{o.add(t, types.OCIUncompressedLayer, "abc")}})
			return []v1.Descriptor{m}
		}, []string{"<none>"}},
		"an artifact, and one that refers to it": {func(o *ociFiles) []v1.Descriptor {
			none := o.add(t, "application/vnd.oci.empty.v1+json", "{}")
			file := o.add(t, "text/plain", "hello")
			artifact := o.add(t, types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: none, Layers: []v1.Descriptor{file}})
			sbom := o.add(t, types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: none, Layers: []v1.Descriptor{none}, Subject: &artifact})
			return []v1.Descriptor{named(artifact, "a.example/file:1"), sbom}
		}, []string{"a.example/file:1", "<none>"}},
		"docker's types, an attestation, an index in an index": {func(o *ociFiles) []v1.Descriptor {
			config, layer := o.add(t, types.DockerConfigJSON, configJSON), o.add(t, types.DockerUncompressedLayer, "abc")
			m := o.add(t, types.DockerManifestSchema2, v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2, Config: config, Layers: []v1.Descriptor{layer}})
			m.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
			att := o.add(t, types.OCIManifestSchema1, v1.Manifest{
				SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: o.add(t, types.OCIConfigJSON, `{"os":"unknown","architecture":"unknown","rootfs":{}}`),
				Layers: []v1.Descriptor{o.add(t, "application/vnd.in-toto+json", `{"_type":"x"}`)},
			})
			att.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
			att.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": m.Digest.String()}
			list := o.add(t, types.DockerManifestList, v1.IndexManifest{SchemaVersion: 2, MediaType: types.DockerManifestList, Manifests: []v1.Descriptor{m, att}})
			x := o.add(t, types.OCIImageIndex, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{list}}) // no type of its own
			return []v1.Descriptor{named(x, "v1"), named(x, "team/app:1"), named(m, "bare")}
		}, []string{"docker.io/team/app:1", "<none>"}},
	} {
		var o ociFiles
		o.index = v1.IndexManifest{SchemaVersion: 2, Manifests: c.fill(&o)}
		s := open(t, t.TempDir())
		if _, err := s.Load(t.Context(), bytes.NewReader(o.archive(t)), layout.LoadOptions{}); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		checkBlobs(t, s)
		if got := names(t, s); !slices.Equal(got, c.names) {
			t.Errorf("%s: named %v, want %v", what, got, c.names)
		}
		// What came in goes out again, whole.
		again := open(t, t.TempDir())
		all, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := s.Save(t.Context(), &b, all, layout.SaveOptions{}); err != nil {
			t.Errorf("%s: save: %v", what, err)
			continue
		}
		load(t, again, b.Bytes())
		if a, b := files(t, s), files(t, again); !slices.Equal(a, b) {
			t.Errorf("%s: saved and loaded it has\n%v, not\n%v", what, b, a)
		}
	}
}
