//go:build linux

package handover

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/plugins/content/local"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// world is a snapshotter, and the content that layers come from and go to.
type world struct {
	*Snapshots
	store content.Store
	t     *testing.T
	n     *int // of the keys made up
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := local.NewLabeledStore(t.TempDir(), labelStore{})
	if err != nil {
		t.Fatal(err)
	}
	return &world{Snapshots: s, store: store, t: t, n: new(int)}
}

// reopened is the same in another process.
func (w *world) reopened() *world {
	w.t.Helper()
	w.must(w.Close())
	next := newWorld(w.t, w.options)
	next.n = w.n
	return next
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// labelStore keeps labels of content in memory.
type labelStore map[digest.Digest]map[string]string

func (l labelStore) Get(d digest.Digest) (map[string]string, error) { return l[d], nil }

func (l labelStore) Set(d digest.Digest, labels map[string]string) error {
	l[d] = labels
	return nil
}

func (l labelStore) Update(d digest.Digest, labels map[string]string) (map[string]string, error) {
	if l[d] == nil {
		l[d] = map[string]string{}
	}
	maps.Copy(l[d], labels)
	return l[d], nil
}

// prepare makes an active snapshot and returns its folder.
func (w *world) prepare(key, parent string) string {
	w.t.Helper()
	m, err := w.Prepare(w.t.Context(), key, parent)
	w.must(err)
	if len(m) != 1 || m[0].Type != "bind" || strings.Join(m[0].Options, " ") != "rbind rw" {
		w.t.Fatalf("mounts %v", m)
	}
	return m[0].Source
}

// step is a RUN: it changes a child of parent by a script, and commits it under name.
func (w *world) step(name, parent, script string) {
	w.t.Helper()
	*w.n++
	key := fmt.Sprintf("active-%d", *w.n)
	dir := w.prepare(key, parent)
	sh(w.t, dir, script)
	w.must(w.Commit(w.t.Context(), name, key))
}

// pulled is a snapshot of a layer.
func (w *world) pulled(name, parent string, layer []byte) {
	w.t.Helper()
	*w.n++
	key := fmt.Sprintf("pull-%d", *w.n)
	m, err := w.Prepare(w.t.Context(), key, parent)
	w.must(err)
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	w.must(content.WriteBlob(w.t.Context(), w.store, name, bytes.NewReader(layer), desc))
	got, err := w.Applier(w.store).Apply(w.t.Context(), desc, m)
	w.must(err)
	if got.Digest != desc.Digest || got.Size != desc.Size {
		w.t.Fatalf("applied %v of %v", got, desc)
	}
	time.Sleep(50 * time.Millisecond) // what is committed right away is compared by content
	w.must(w.Commit(w.t.Context(), name, key))
}

// view is the folder of a snapshot.
func (w *world) view(name string) string {
	w.t.Helper()
	*w.n++
	m, err := w.View(w.t.Context(), fmt.Sprintf("view-%d", *w.n), name)
	w.must(err)
	return m[0].Source
}

// layer is what the differ writes of a snapshot on another.
func (w *world) layer(lower, upper string) []byte {
	w.t.Helper()
	mounts := func(name string) []mount.Mount {
		if name == "" {
			return nil
		}
		id, _, _, err := w.info(w.t.Context(), name)
		w.must(err)
		return w.mounts(id)
	}
	desc, err := w.Differ(w.store).Compare(w.t.Context(), mounts(lower), mounts(upper), diff.WithMediaType(ocispecs.MediaTypeImageLayer))
	w.must(err)
	b, err := content.ReadBlob(w.t.Context(), w.store, desc)
	w.must(err)
	return b
}

func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// layerOf is a tar of these entries; a file's content is its Linkname, since tar doesn't use that.
func layerOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := ""
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			h.Typeflag, body, h.Linkname = tar.TypeReg, h.Linkname, ""
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1600000000, 0)
		}
		if h.Format == tar.FormatUnknown {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// list describes a layer, a line for each entry.
func list(t *testing.T, layer []byte) string {
	t.Helper()
	var b strings.Builder
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%c %s %04o %d:%d %d %q %d,%d %q %v\n", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname,
			h.Devmajor, h.Devminor, body, h.PAXRecords)
	}
}

// TestDiffer compares layers that are compressed and bounded in all ways that BuildKit asks for.
func TestDiffer(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0})
	w.step("a", "", "echo content >f; touch -d @1700000000 f")
	id := w.idNamed("a")
	plain := w.layer("", "a")
	early := time.Unix(1600000000, 0)
	asked := ""
	compare := func(opts ...diff.Opt) (ocispecs.Descriptor, []byte) {
		t.Helper()
		desc, err := w.Differ(w.store).Compare(t.Context(), nil, w.mounts(id), opts...)
		w.must(err)
		blob, err := content.ReadBlob(t.Context(), w.store, desc)
		w.must(err)
		layer, err := compression.DecompressStream(bytes.NewReader(blob))
		w.must(err)
		b, err := io.ReadAll(layer)
		w.must(err)
		info, err := w.store.Info(t.Context(), desc.Digest)
		if want := digest.FromBytes(b).String(); err != nil || info.Labels["containerd.io/uncompressed"] != want {
			t.Errorf("labels %v of a layer that is %s uncompressed, %v", info.Labels, want, err)
		}
		return desc, b
	}
	for _, want := range []string{ocispecs.MediaTypeImageLayerGzip, ocispecs.MediaTypeImageLayer, ocispecs.MediaTypeImageLayerZstd} {
		opts := []diff.Opt{diff.WithMediaType(want)}
		if want == ocispecs.MediaTypeImageLayerGzip {
			opts = nil // that is the default
		}
		desc, got := compare(opts...)
		if again, _ := compare(opts...); desc.MediaType != want || !bytes.Equal(got, plain) || again.Digest != desc.Digest {
			t.Errorf("%s: %v, then %v", want, desc, again)
		}
	}
	desc, got := compare(diff.WithMediaType("some/type"), diff.WithReference("ref"), diff.WithCompressor(func(dest io.Writer, mediaType string) (io.WriteCloser, error) {
		asked = mediaType
		return gzip.NewWriterLevel(dest, gzip.BestSpeed)
	}))
	if desc.MediaType != "some/type" || asked != "some/type" || !bytes.Equal(got, plain) {
		t.Errorf("compressor asked for %q, got %v", asked, desc)
	}
	_, got = compare(diff.WithSourceDateEpoch(&early))
	if before, after := list(t, plain), list(t, got); strings.ReplaceAll(before, "1700000000", "1600000000") != after {
		t.Errorf("layer %s, bounded %s", before, after)
	}
	for _, opt := range []diff.Opt{diff.WithMediaType("some/type"), diff.WithCompressor(func(io.Writer, string) (io.WriteCloser, error) { return nil, nil })} {
		if _, err := w.Differ(w.store).Compare(t.Context(), nil, w.mounts(id), opt); err == nil {
			t.Error("a layer of no type that there is")
		}
	}
	if _, err := w.Differ(w.store).Compare(t.Context(), nil, []mount.Mount{{Type: "overlay"}}); err == nil {
		t.Error("a layer of what is not a snapshot")
	}
}

func TestChain(t *testing.T) {
	w := newWorld(t, Options{OwnersAside: os.Geteuid() != 0})
	w.step("a", "", "mkdir -p etc usr/bin; echo 1 >etc/one; echo 2 >etc/two; ln etc/one usr/bin/one; echo keep >keep")
	w.step("b", "a", "rm etc/two; echo more >>etc/one; mkdir new; mkfifo new/pipe; ln -s /etc/one new/link")
	w.step("c", "b", "rm -r usr; echo file >usr; rm keep; mkdir keep; echo deep >keep/deep")
	if got, err := os.ReadFile(filepath.Join(w.view("a"), "etc/one")); err != nil || string(got) != "1\n" {
		t.Errorf("the first snapshot has %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(w.view("c"), "keep/deep")); err != nil {
		t.Error(err)
	}
	if got := list(t, w.layer("b", "c")); strings.Count(got, "\n") != 3 {
		t.Errorf("layer of c:\n%s", got)
	}
	base := layerOf(t, tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "a/file", Linkname: "content", Uid: 7})
	w.pulled("pulled", "", base)
	if got := w.layer("", "pulled"); !bytes.Equal(got, base) {
		t.Error("a pulled layer is not what the differ writes")
	}
}
