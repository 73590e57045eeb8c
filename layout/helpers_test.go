package layout_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

// memory is a Source of what is in memory, with faults on demand.
type memory struct {
	root  v1.Descriptor
	blobs map[v1.Hash][]byte

	mu     sync.Mutex
	opened map[v1.Hash]int
	open   func(d v1.Descriptor, offset int64, content []byte) (io.ReadCloser, error) // a fault
}

func (m *memory) Descriptor() v1.Descriptor { return m.root }

func (m *memory) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened[d.Digest]++
	content, ok := m.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("the source has no %s", d.Digest)
	}
	if m.open != nil {
		return m.open(d, offset, content)
	}
	return io.NopCloser(bytes.NewReader(content[offset:])), nil
}

func (m *memory) add(t testing.TB, raw []byte, err error) v1.Hash {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	m.blobs[h] = raw
	return h
}

func (m *memory) addImage(t testing.TB, img v1.Image) {
	t.Helper()
	raw, err := img.RawManifest()
	m.add(t, raw, err)
	raw, err = img.RawConfigFile()
	m.add(t, raw, err)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		m.add(t, raw, err)
	}
}

// from makes a Source of a ggcr image or index.
func from(t testing.TB, thing partial.Describable) *memory {
	t.Helper()
	m := &memory{blobs: map[v1.Hash][]byte{}, opened: map[v1.Hash]int{}}
	d, err := partial.Descriptor(thing)
	if err != nil {
		t.Fatal(err)
	}
	m.root = *d
	switch x := thing.(type) {
	case v1.Image:
		m.addImage(t, x)
	case v1.ImageIndex:
		m.addIndex(t, x)
	}
	return m
}

func (m *memory) addIndex(t testing.TB, x v1.ImageIndex) {
	t.Helper()
	raw, err := x.RawManifest()
	m.add(t, raw, err)
	im, err := x.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range im.Manifests {
		if d.MediaType.IsIndex() {
			child, err := x.ImageIndex(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			m.addIndex(t, child)
			continue
		}
		img, err := x.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		m.addImage(t, img)
	}
}

var epoch = time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)

// image makes an image of random layers for a platform.
func image(t testing.TB, p string, layers int, size int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, int64(layers))
	if err != nil {
		t.Fatal(err)
	}
	return dress(t, img, p)
}

func dress(t testing.TB, img v1.Image, p string) v1.Image {
	t.Helper()
	want, err := platform.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Variant, c.Created = want.OS, want.Architecture, want.Variant, v1.Time{Time: epoch}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// index makes an index over images, one per platform.
func index(t testing.TB, platforms ...string) (v1.ImageIndex, []v1.Image) {
	t.Helper()
	x := v1.ImageIndex(empty.Index)
	var images []v1.Image
	for _, s := range platforms {
		img := oci(image(t, s, 2, 3000))
		p, err := platform.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		x = mutate.AppendManifests(x, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
		images = append(images, img)
	}
	return x, images
}

func open(t testing.TB, dir string, opts ...layout.Option) *layout.Store {
	t.Helper()
	s, err := layout.Open(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *layout.Store, src layout.Source, names ...string) *layout.Image {
	t.Helper()
	img, err := s.Put(t.Context(), src, layout.PutOptions{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func find(t testing.TB, s *layout.Store, ref string) *layout.Image {
	t.Helper()
	found, err := s.Find(ref)
	if err != nil {
		t.Fatal(err)
	}
	return found[0]
}

// names lists the store: the names in order, and <none>.
func names(t testing.TB, s *layout.Store) []string {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, i := range all {
		name := i.Name()
		if name == "" {
			name = "<none>"
		}
		list = append(list, name)
	}
	return list
}

// check has somebody else look at the store: ggcr must find every entry valid,
// down to the layers. Nothing unfinished may lie about.
func check(t testing.TB, s *layout.Store) {
	t.Helper()
	checkBlobs(t, s)
	p, err := ggcr.FromPath(s.Dir())
	if err != nil {
		t.Fatalf("not a layout: %v", err)
	}
	x, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	im, err := x.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range im.Manifests {
		if d.MediaType.IsIndex() {
			child, err := x.ImageIndex(d.Digest)
			if err == nil {
				err = validate.Index(child)
			}
			if err != nil {
				t.Errorf("index %s: %v", d.Digest, err)
			}
			continue
		}
		img, err := x.Image(d.Digest)
		if err == nil {
			err = validate.Image(img, fastIfPlain(t, img)...)
		}
		if err != nil {
			t.Errorf("image %s: %v", d.Digest, err)
		}
	}
}

// fastIfPlain: ggcr's validation takes every layer for a gzip file. Others are
// checked by their digest, as all blobs are.
func fastIfPlain(t testing.TB, img v1.Image) []validate.Option {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		if l.MediaType == types.OCIUncompressedLayer {
			return []validate.Option{validate.Fast}
		}
	}
	return nil
}

// checkBlobs hashes every blob.
func checkBlobs(t testing.TB, s *layout.Store) {
	t.Helper()
	blobs, err := os.ReadDir(filepath.Join(s.Dir(), "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		raw, err := os.ReadFile(filepath.Join(s.Dir(), "blobs", "sha256", b.Name()))
		if got := fmt.Sprintf("%x", sha256.Sum256(raw)); err != nil || got != b.Name() {
			t.Errorf("blob %s is %s, %v", b.Name(), got, err)
		}
	}
}

// files lists everything in the store's folder but lock files.
func files(t testing.TB, s *layout.Store) []string {
	t.Helper()
	list := []string{}
	err := filepath.WalkDir(s.Dir(), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) == ".lock" {
			return err
		}
		rel, err := filepath.Rel(s.Dir(), p)
		list = append(list, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func digest(t testing.TB, x interface{ Digest() (v1.Hash, error) }) v1.Hash {
	t.Helper()
	h, err := x.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func itoa(n int64) string { return fmt.Sprint(n) }
