package layout_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/wherry-oci/wherry/layout"
)

// An archive of docker 25 and later has both formats; either may have the names.
func TestLoadTakesNamesFromBothFormats(t *testing.T) {
	img := image(t, "linux/amd64", 1, 100)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	oci := filesOf(t, ociArchive(t, func(p ggcr.Path) error {
		return p.AppendImage(img, ggcr.WithAnnotations(map[string]string{"io.containerd.image.name": alpine, "org.opencontainers.image.ref.name": "3.20"}))
	}))
	docker := file{name: "manifest.json", body: fmt.Sprintf(
		`[{"Config":"blobs/sha256/%s","RepoTags":["alpine:3.20","registry.example/team/app:v1"],"Layers":["blobs/sha256/%s"],"LayerSources":{}}]`,
		config.Hex, layerOf(t, img).Digest.Hex)}
	s := open(t, t.TempDir())
	if loaded := load(t, s, archiveOf(t, append(oci, docker)...)); len(loaded) != 2 || loaded[1].Descriptor().Digest != digest(t, img) {
		t.Errorf("loaded %v", loaded)
	}
	if got := names(t, s); !slices.Equal(got, []string{alpine, other}) {
		t.Errorf("named %v", got)
	}
	check(t, s)
}

// Below an index a platform may be left out, but none may have lost a part.
func TestLoadTellsWhatIsLeftOutFromWhatIsLost(t *testing.T) {
	x, images := index(t, "linux/amd64", "linux/arm64")
	m, err := images[1].Manifest()
	if err != nil {
		t.Fatal(err)
	}
	whole := filesOf(t, ociArchive(t, func(p ggcr.Path) error { return p.AppendIndex(x) }))
	without := func(lost ...v1.Hash) []byte {
		return archiveOf(t, slices.DeleteFunc(slices.Clone(whole), func(f file) bool {
			return slices.ContainsFunc(lost, func(h v1.Hash) bool { return strings.HasSuffix(f.name, h.Hex) })
		})...)
	}
	first, second := m.Layers[0].Digest, m.Layers[1].Digest
	for what, archive := range map[string][]byte{
		"no manifest of it":       without(digest(t, images[1]), m.Config.Digest, first, second),
		"its manifest alone":      without(m.Config.Digest, first, second),
		"its manifest and config": without(first, second),
	} {
		s := open(t, t.TempDir())
		img := load(t, s, archive)[0]
		infos, err := img.Platforms()
		if err != nil || len(infos) != 2 || !infos[0].Present || infos[1].Present {
			t.Errorf("%s: %+v, %v", what, infos, err)
		}
		again := load(t, open(t, t.TempDir()), save(t, s, img.Descriptor().Digest.String()))
		if again[0].Descriptor().Digest != digest(t, x) {
			t.Errorf("%s: saved as %s", what, again[0].Descriptor().Digest)
		}
		if _, err := s.Remove(t.Context(), img.Descriptor().Digest.String(), layout.RemoveOptions{}); err != nil {
			t.Error(err)
		}
		if left := files(t, s); len(left) != 2 {
			t.Errorf("%s: left %v", what, left)
		}
	}
	var missing *layout.MissingError
	for _, lost := range []v1.Hash{first, m.Config.Digest} {
		s := open(t, t.TempDir())
		if _, err := s.Load(t.Context(), bytes.NewReader(without(lost)), layout.LoadOptions{}); !errors.As(err, &missing) || missing.Digest != lost {
			t.Errorf("a lost blob: %v", err)
		}
	}
}
