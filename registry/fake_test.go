package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fake is a registry in this process with a hook in front of it and a log of
// what it was asked.
type fake struct {
	*httptest.Server
	registry http.Handler

	mu   sync.Mutex
	hook func(w http.ResponseWriter, r *http.Request) (done bool)
	log  []*http.Request
}

func newHandler() *fake {
	return &fake{registry: ggcrregistry.New(ggcrregistry.Logger(discardLog()))}
}

// newFake starts one on plain HTTP.
func newFake(t *testing.T) *fake {
	t.Helper()
	f := newHandler()
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.log = append(f.log, r.Clone(context.WithoutCancel(r.Context())))
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	f.registry.ServeHTTP(w, r)
}

// on installs a hook and forgets the log.
func (f *fake) on(hook func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook, f.log = hook, nil
}

// asked returns the requests whose method and path hold these.
func (f *fake) asked(method, path string) []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []*http.Request
	for _, r := range f.log {
		if r.Method == method && strings.Contains(r.URL.Path, path) {
			found = append(found, r)
		}
	}
	return found
}

func (f *fake) host() string { return f.Listener.Addr().String() }

func (f *fake) ref(t *testing.T, rest string) reference.Named { return mustRef(t, f.host()+"/"+rest) }

func mustRef(t testing.TB, s string) reference.Named {
	t.Helper()
	ref, err := ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// newClient is impatient.
func newClient(c Config) *Client {
	client := New(c)
	client.limits.backoff = time.Millisecond
	client.limits.stall = 2 * time.Second
	client.limits.dial = 2 * time.Second
	return client
}

// memory is a Source.
type memory struct {
	root  v1.Descriptor
	blobs map[v1.Hash][]byte

	mu     sync.Mutex
	opened []v1.Hash
	from   []reference.Named
}

func (m *memory) Descriptor() v1.Descriptor { return m.root }

func (m *memory) Origins(v1.Descriptor) []reference.Named { return m.from }

func (m *memory) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("no %s here", d.Digest)
	}
	m.opened = append(m.opened, d.Digest)
	return io.NopCloser(bytes.NewReader(b[offset:])), nil
}

func (m *memory) add(mediaType types.MediaType, content []byte) v1.Descriptor {
	h, size, _ := v1.SHA256(bytes.NewReader(content))
	m.blobs[h] = content
	return v1.Descriptor{MediaType: mediaType, Digest: h, Size: size}
}

// addJSON indents, so that a document which was parsed and written anew differs.
func (m *memory) addJSON(mediaType types.MediaType, v any) v1.Descriptor {
	content, err := json.MarshalIndent(v, " ", "   ")
	if err != nil {
		panic(err)
	}
	return m.add(mediaType, content)
}

func noise(seed uint64, size int) []byte {
	b := make([]byte, size)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// newImage has one layer of each size.
func newImage(seed uint64, sizes ...int) *memory {
	m := &memory{blobs: map[v1.Hash][]byte{}}
	m.root = m.image(seed, sizes...)
	return m
}

func (m *memory) image(seed uint64, sizes ...int) v1.Descriptor {
	manifest := map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "x-unknown": "kept",
		"config": m.addJSON(types.OCIConfigJSON, map[string]any{"os": "linux", "architecture": "amd64", "seed": seed}),
	}
	layers := []v1.Descriptor{}
	for i, size := range sizes {
		layers = append(layers, m.add(types.OCILayer, noise(seed+uint64(i)+1, size)))
	}
	manifest["layers"] = layers
	return m.addJSON(types.OCIManifestSchema1, manifest)
}

// newIndex has two images, an attestation, an artifact without layers, a nested
// index, and, if odd, a child of a type that nobody knows.
func newIndex(odd bool) *memory {
	m := &memory{blobs: map[v1.Hash][]byte{}}
	amd64 := m.image(100, 3000)
	amd64.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64 := m.image(200, 4000)
	arm64.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	attestation := m.addJSON(types.OCIManifestSchema1, map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1,
		"config": m.add(types.OCIConfigJSON, []byte(`{"not":"an image's config"`)), // not even JSON
		"layers": []v1.Descriptor{m.addJSON("application/vnd.in-toto+json", "statement")},
	})
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	artifact := m.addJSON(types.OCIManifestSchema1, map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": "application/x-thing",
		"config": m.add("application/vnd.oci.empty.v1+json", []byte("{}")), "layers": []v1.Descriptor{},
	})
	nested := m.addJSON(types.OCIImageIndex, map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": []v1.Descriptor{m.image(300, 10)},
	})
	children := []v1.Descriptor{amd64, arm64, attestation, artifact, nested}
	if odd {
		children = append(children, m.add("application/x-odd", []byte("odd bytes")))
	}
	m.root = m.addJSON(types.OCIImageIndex, map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": children,
	})
	return m
}

func mustPush(t *testing.T, c *Client, ref reference.Named, m *memory) {
	t.Helper()
	if err := c.Push(t.Context(), ref, m); err != nil {
		t.Fatalf("push: %v", err)
	}
}

// mustHold fails unless every blob of m can be read back from ref.
func mustHold(t *testing.T, c *Client, ref reference.Named, m *memory) {
	t.Helper()
	img, err := c.Get(t.Context(), ref)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if img.Descriptor().Digest != m.root.Digest {
		t.Errorf("got %s, want %s", img.Descriptor().Digest, m.root.Digest)
	}
	seen := map[v1.Hash]bool{}
	m.walk(m.root, func(d v1.Descriptor) {
		seen[d.Digest] = true
		if got := read(t, img, d, 0); !bytes.Equal(got, m.blobs[d.Digest]) {
			t.Errorf("%s (%s) came back as %d other bytes", d.Digest, d.MediaType, len(got))
		}
	})
	if len(seen) != len(m.blobs) {
		t.Errorf("read %d blobs of %d", len(seen), len(m.blobs))
	}
}

func (m *memory) walk(d v1.Descriptor, visit func(v1.Descriptor)) {
	visit(d)
	var r refers
	if !isManifest(d.MediaType) || json.Unmarshal(m.blobs[d.Digest], &r) != nil {
		return
	}
	if r.Config != nil {
		visit(*r.Config)
	}
	for _, l := range r.Layers {
		visit(l)
	}
	for _, c := range r.Manifests {
		m.walk(c, visit)
	}
}

func read(t *testing.T, s Source, d v1.Descriptor, offset int64) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), d, offset)
	if err != nil {
		t.Errorf("open %s: %v", d.Digest, err)
		return nil
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("read %s: %v", d.Digest, err)
	}
	return b
}

func (m *memory) layer(i int) v1.Descriptor {
	var r refers
	if err := json.Unmarshal(m.blobs[m.root.Digest], &r); err != nil {
		panic(err)
	}
	return r.Layers[i]
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) } //nolint:forbidigo // servers want one
