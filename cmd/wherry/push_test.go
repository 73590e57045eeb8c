package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// memory is an image or index with everything it needs, by digest.
type memory struct {
	desc  v1.Descriptor
	blobs map[v1.Hash][]byte
}

// Descriptor and Open make it a layout.Source.
func (m *memory) Descriptor() v1.Descriptor { return m.desc }

func (m *memory) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.blobs[d.Digest][offset:])), nil
}

// multi is an index over images for the platforms, and an attestation where it is asked for.
func multi(t *testing.T, attested bool, platforms ...string) *memory {
	t.Helper()
	m := &memory{blobs: map[v1.Hash][]byte{}}
	var adds []mutate.IndexAddendum
	for _, name := range platforms {
		p, err := platform.Parse(name)
		must(t, err)
		adds = append(adds, mutate.IndexAddendum{Add: m.image(t, p), Descriptor: v1.Descriptor{Platform: &p}})
	}
	if attested {
		p := v1.Platform{OS: "unknown", Architecture: "unknown"}
		adds = append(adds, mutate.IndexAddendum{Add: m.image(t, p), Descriptor: v1.Descriptor{
			Platform: &p, Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
		}})
	}
	index := mutate.AppendManifests(empty.Index, adds...)
	desc, err := partial.Descriptor(index)
	must(t, err)
	m.desc = *desc
	m.blobs[desc.Digest], err = index.RawManifest()
	must(t, err)
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes one image of a single layer and keeps its blobs.
func (m *memory) image(t *testing.T, p v1.Platform) v1.Image {
	t.Helper()
	img, err := random.Image(100, 1)
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	img, err = mutate.ConfigFile(img, config)
	must(t, err)
	manifest, err := img.Manifest()
	must(t, err)
	m.blobs[manifest.Config.Digest], err = img.RawConfigFile()
	must(t, err)
	layers, err := img.Layers()
	must(t, err)
	content, err := layers[0].Compressed()
	must(t, err)
	m.blobs[manifest.Layers[0].Digest], err = io.ReadAll(content)
	must(t, err)
	digest, err := img.Digest()
	must(t, err)
	m.blobs[digest], err = img.RawManifest()
	must(t, err)
	return img
}

// What of an index is pushed depends on what the store has of it.
func TestPushOfAnIndex(t *testing.T) {
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	three := []string{"linux/amd64", "linux/arm64", "linux/arm/v7"}
	for _, c := range []struct {
		name     string
		attested bool
		keep     []string // nil: all
		flags    string
		pushed   string // "index", a platform, or "" for nothing
		stderr   string
	}{
		{name: "whole", pushed: "index"},
		{name: "whole-attested", attested: true, pushed: "index"},
		{name: "one-of-three", keep: []string{"linux/arm64"}, pushed: "linux/arm64", stderr: "note: not all of the multi-platform image is in the store, only linux/arm64 was pushed\n"},
		{name: "two-of-three", keep: []string{"linux/arm64", "linux/arm/v7"}, stderr: "wherry: the store has only linux/arm64, linux/arm/v7 of the image, not linux/amd64\nhint: wherry push --platform linux/arm64 "},
		{name: "chosen", flags: "--platform linux/arm/v7", pushed: "linux/arm/v7"},
		{name: "not-there", keep: []string{"linux/arm64"}, flags: "--platform linux/amd64", stderr: "no manifest for linux/amd64 (there is linux/arm64)\nhint: wherry pull --platform linux/amd64 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, stdout, stderr := testEnv(t)
			store, err := e.openStore()
			must(t, err)
			src := multi(t, c.attested, three...)
			keep, err := platform.ParseAll(c.keep)
			must(t, err)
			name := host + "/" + c.name + ":1"
			img, err := store.Put(t.Context(), src, layout.PutOptions{Names: []string{name}, Platforms: keep})
			must(t, err)
			want := src.desc.Digest
			if c.pushed != "" && c.pushed != "index" {
				p, err := platform.Parse(c.pushed)
				must(t, err)
				child, err := img.Select(p)
				must(t, err)
				want = child.Descriptor().Digest
			}
			code := run(t.Context(), e, slices.Concat([]string{"wherry", "push"}, strings.Fields(c.flags), []string{name}))
			if !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("stderr %q, want %q", stderr, c.stderr)
			}
			ref, err := reference.ParseNormalizedNamed(name)
			must(t, err)
			got, err := registry.New(registry.Config{}).Get(t.Context(), ref)
			switch {
			case c.pushed == "":
				if err == nil || code != exitFailed || stdout.Len() > 0 {
					t.Errorf("exit code %d, stdout %q, the registry says %v", code, stdout, err)
				}
			case err != nil || code != exitDone:
				t.Errorf("exit code %d, stderr %q, the registry says %v", code, stderr, err)
			case got.Descriptor().Digest != want || !strings.HasPrefix(stdout.String(), "1: digest: "+want.String()+" size: "):
				t.Errorf("the registry has %s, stdout %q, want %s", got.Descriptor().Digest, stdout, want)
			}
		})
	}
}

// All tags of a repository go out, and come back into another store; other repositories stay where they are.
func TestAllTags(t *testing.T) {
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	repo := strings.TrimPrefix(server.URL, "http://") + "/team/app"
	e, stdout, stderr := testEnv(t)
	store, err := e.openStore()
	must(t, err)
	for _, name := range []string{repo + ":1", repo + ":2", repo + "lication:3"} {
		_, err := store.Put(t.Context(), multi(t, false, "linux/amd64"), layout.PutOptions{Names: []string{name}})
		must(t, err)
	}
	if code := run(t.Context(), e, []string{"wherry", "push", "-a", repo}); code != exitDone {
		t.Fatalf("push: exit code %d, %s", code, stderr)
	}
	if lines := strings.Split(strings.TrimSpace(stdout.String()), "\n"); len(lines) != 2 ||
		!strings.HasPrefix(lines[0], "1: digest: ") || !strings.HasPrefix(lines[1], "2: digest: ") {
		t.Errorf("push prints %q", stdout)
	}

	e, stdout, stderr = testEnv(t)
	if code := run(t.Context(), e, []string{"wherry", "pull", "--platform=all", "-aq", repo}); code != exitDone || stderr.Len() > 0 {
		t.Fatalf("pull: exit code %d, %s", code, stderr)
	}
	if want := repo + ":1\n" + repo + ":2\n"; stdout.String() != want {
		t.Errorf("pull prints %q, want %q", stdout, want)
	}
	stdout.Reset()
	if code := run(t.Context(), e, []string{"wherry", "images", "--format", "{{.Repository}}:{{.Tag}}"}); code != exitDone ||
		strings.Count(stdout.String(), repo+":") != 2 {
		t.Errorf("exit code %d, the store has %q", code, stdout)
	}
	if code := run(t.Context(), e, []string{"wherry", "pull", "-a", repo + ":1"}); code != exitUsage {
		t.Errorf("pull --all-tags with a tag: exit code %d", code)
	}
}
