package layout_test

import (
	"bytes"
	"errors"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

// What comes from elsewhere makes the archive that it would make from the store.
func TestExportIsSave(t *testing.T) {
	many, _ := index(t, "linux/amd64", "linux/arm64")
	src, single := from(t, many), from(t, image(t, "linux/amd64", 2, 200_000))
	s := open(t, t.TempDir())
	images := []*layout.Image{put(t, s, src, "app:1"), put(t, s, single, "other:2")}
	var saved, exported bytes.Buffer
	if err := s.Save(t.Context(), &saved, images, layout.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	err := layout.Export(t.Context(), &exported, []layout.Exported{{Source: src, Name: "app:1"}, {Source: single, Name: "other:2"}}, layout.SaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(saved.Bytes(), exported.Bytes()) {
		t.Errorf("%d bytes, and not the same as the %d that the store saves", exported.Len(), saved.Len())
	}
}

// A blob with other bytes is an error, and one that ends early.
func TestExportVerifies(t *testing.T) {
	img := image(t, "linux/amd64", 1, 10_000)
	layer := layerOf(t, img)
	for name, spoil := range map[string]func(raw []byte) []byte{
		"wrong": func(raw []byte) []byte { return append(bytes.Clone(raw[:len(raw)-1]), raw[len(raw)-1]^1) },
		"short": func(raw []byte) []byte { return raw[:len(raw)-1] },
	} {
		src := from(t, img)
		src.blobs[layer.Digest] = spoil(src.blobs[layer.Digest])
		err := layout.Export(t.Context(), new(bytes.Buffer), []layout.Exported{{Source: src, Name: "app"}}, layout.SaveOptions{})
		if !errors.As(err, new(*layout.DigestError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A bare tag is found by that, moves, and is no name.
func TestRefNames(t *testing.T) {
	s := open(t, t.TempDir())
	first, second := from(t, image(t, "linux/amd64", 1, 1000)), from(t, image(t, "linux/amd64", 1, 2000))
	for _, src := range []*memory{first, second, second} {
		if _, err := s.Put(t.Context(), src, layout.PutOptions{RefName: "v1"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := find(t, s, "v1"); got.Descriptor().Digest != second.root.Digest || got.RefName() != "v1" || got.Name() != "" {
		t.Errorf("v1 is %s, %q, %q", got.Descriptor().Digest, got.RefName(), got.Name())
	}
	tags, err := s.Tags("")
	if err != nil || len(tags) != 1 {
		t.Errorf("tags %v, %v", tags, err)
	}
	if _, err := s.Put(t.Context(), first, layout.PutOptions{RefName: "app:2"}); err != nil {
		t.Fatal(err)
	}
	if got := find(t, s, "app:2"); got.RefName() != "app:2" || got.Name() != "docker.io/library/app:2" {
		t.Errorf("app:2 is %q, %q", got.RefName(), got.Name())
	}
	if _, err := s.Put(t.Context(), first, layout.PutOptions{RefName: "a\x1b[2J"}); err == nil {
		t.Error("a name that repaints terminals was taken")
	}
	if list, err := s.Referrers(t.Context(), "", v1.Hash{Algorithm: "sha256", Hex: first.root.Digest.Hex}); err != nil || len(list) != 0 {
		t.Errorf("referrers %v, %v", list, err)
	}
	check(t, s)
}
