package layout_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
)

// thousands makes a store of 5,000 names, each of its own image. It is written
// by hand: 5,000 Puts would sync 20,000 files.
func thousands(b *testing.B) *layout.Store {
	b.Helper()
	s := open(b, b.TempDir())
	x := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for n := range 5000 {
		img, err := random.Image(64, 3)
		if err != nil {
			b.Fatal(err)
		}
		m := from(b, img)
		for h, raw := range m.blobs {
			if err := os.WriteFile(s.BlobPath(h), raw, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		name := fmt.Sprintf("registry.example/team/app%d:v%d", n/100, n%100)
		m.root.Annotations = map[string]string{
			"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name,
			"org.opencontainers.image.created": "2024-02-03T04:05:06Z",
			"com.github.wherry-oci.size":       "12345678", "com.github.wherry-oci.tagged": "2024-02-03T04:05:06.123456789Z",
		}
		x.Manifests = append(x.Manifests, m.root)
	}
	raw, err := json.Marshal(x)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "index.json"), raw, 0o600); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkThousands(b *testing.B) {
	s := thousands(b)
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			all, err := s.List()
			if err != nil || len(all) != 5000 {
				b.Fatal(len(all), err)
			}
			for _, i := range all {
				_, _ = i.Created(), i.Size()
			}
		}
	})
	b.Run("find by name", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Find("registry.example/team/app3:v99"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("find nothing by ID", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Find("0123456789abcdef"); err == nil {
				b.Fatal("found")
			}
		}
	})
	b.Run("tag", func(b *testing.B) {
		img := find(b, s, "registry.example/team/app3:v99")
		for n := 0; b.Loop(); n++ {
			if err := s.Tag(img, fmt.Sprintf("x:%d", n%10)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("collect", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Collect(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
