package layout_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

const alpine, other = "docker.io/library/alpine:3.20", "registry.example/team/app:v1"

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	check(t, open(t, dir))
	if got := names(t, open(t, dir)); len(got) != 0 {
		t.Errorf("a new store has %v", got)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Open(foreign); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("somebody's folder became a store: %v", err)
	}
}

func TestPutNamesAndFinds(t *testing.T) {
	s := open(t, t.TempDir())
	x, images := index(t, "linux/amd64", "linux/arm64")
	src := from(t, x)
	img := put(t, s, src, alpine, other)
	check(t, s)
	if got := names(t, s); !slices.Equal(got, []string{alpine, other}) {
		t.Fatalf("listed %v", got)
	}
	var size int64
	for _, raw := range src.blobs {
		size += int64(len(raw))
	}
	if listed := find(t, s, "alpine:3.20"); listed.Size() != size || !listed.Created().Equal(epoch) || listed.Tagged().IsZero() {
		t.Errorf("size %d, created %v, tagged %v; want %d, %v", listed.Size(), listed.Created(), listed.Tagged(), size, epoch)
	}

	id, child := img.Descriptor().Digest, digest(t, images[1])
	config, err := images[1].ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]v1.Hash{
		"alpine:3.20": id, "docker.io/library/alpine:3.20": id, "registry.example/team/app:v1": id,
		"alpine@" + id.String(): id, "alpine:3.20@" + id.String(): id, "alpine@" + child.String(): child,
		id.String(): id, id.Hex: id, id.Hex[:12]: id, "sha256:" + id.Hex[:7]: id,
		child.Hex: child, child.Hex[:16]: child, config.String(): child, config.Hex[:16]: child,
	} {
		if got := find(t, s, ref); got.Descriptor().Digest != want {
			t.Errorf("Find(%q) = %s, want %s", ref, got.Descriptor().Digest, want)
		}
	}
	if found, err := s.Find(id.Hex); err != nil || len(found) != 2 {
		t.Errorf("an ID with two names found %d entries, %v", len(found), err)
	}
	var none *layout.NotFoundError
	for _, ref := range []string{"alpine", "alpine:3.2", "nothing@" + id.String(), "", "-", "sha256:", "ALPINE:3.20", strings.Repeat("0", 64)} {
		if _, err := s.Find(ref); !errors.As(err, &none) || none.Ref != ref {
			t.Errorf("Find(%q): %v", ref, err)
		}
	}
	src.opened = map[v1.Hash]int{}
	put(t, s, src, alpine)
	if len(src.opened) != 0 {
		t.Errorf("what was there was read again: %v", src.opened)
	}
}

func TestFindPrefersNamesAndEntriesAndSaysWhatIsAmbiguous(t *testing.T) {
	s := open(t, t.TempDir())
	byPrefix := map[string]int{}
	for range 17 { // two of them must begin with the same digit
		img := put(t, s, from(t, image(t, "linux/amd64", 1, 10)))
		byPrefix[img.Descriptor().Digest.Hex[:1]]++
		c, err := img.Config()
		if err != nil || c.Architecture != "amd64" {
			t.Fatalf("config %v, %v", c, err)
		}
	}
	var some *layout.AmbiguousError
	for prefix, n := range byPrefix {
		_, err := s.Find(prefix)
		if n > 1 && (!errors.As(err, &some) || len(some.IDs) != n) || n == 1 && err != nil {
			t.Errorf("%q begins %d IDs: %v", prefix, n, err)
		}
	}
	for prefix := range byPrefix {
		name := "docker.io/library/" + prefix + ":latest"
		put(t, s, from(t, image(t, "linux/arm64", 1, 10)), name)
		if got := find(t, s, prefix); got.Name() != name {
			t.Errorf("%q is a name, found %q", prefix, got.Name())
		}
	}
}

func TestReplacedNamesLeaveUntaggedEntries(t *testing.T) {
	s := open(t, t.TempDir())
	first, second := from(t, image(t, "linux/amd64", 1, 100)), from(t, image(t, "linux/amd64", 1, 100))
	put(t, s, first, alpine)
	put(t, s, second, alpine)
	if got := names(t, s); !slices.Equal(got, []string{"<none>", alpine}) {
		t.Errorf("after a replacement: %v", got)
	}
	put(t, s, first) // has an entry already
	if err := s.Tag(find(t, s, first.root.Digest.Hex), other); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s); !slices.Equal(got, []string{other, alpine}) {
		t.Errorf("after naming the untagged one: %v", got)
	}
	if err := s.Tag(find(t, s, "alpine:3.20"), other); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(find(t, s, "alpine:3.20"), "three"); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s); !slices.Equal(got, []string{"<none>", alpine, other, "docker.io/library/three:latest"}) {
		t.Errorf("after more tags: %v", got)
	}
	if got := find(t, s, "three"); got.Size() != find(t, s, "alpine:3.20").Size() || got.Size() == 0 {
		t.Errorf("the new name has size %d", got.Size())
	}
	for _, bad := range []string{"", "UPPER", "a b", "x@" + first.root.Digest.String()} {
		if err := s.Tag(find(t, s, "three"), bad); err == nil {
			t.Errorf("tagged as %q", bad)
		}
	}
	check(t, s)
}

func TestRemove(t *testing.T) {
	s := open(t, t.TempDir())
	empty := files(t, s)
	src := from(t, image(t, "linux/amd64", 2, 100))
	x, images := index(t, "linux/amd64", "linux/arm64")
	put(t, s, from(t, x), "two")
	keep := files(t, s)
	put(t, s, src, alpine, other)
	id := src.root.Digest

	var used *layout.InUseError
	if _, err := s.Remove(t.Context(), id.Hex[:12], layout.RemoveOptions{}); !errors.As(err, &used) || !slices.Equal(used.Names, []string{alpine, other}) {
		t.Errorf("an ID with two names: %v", err)
	}
	if _, err := s.Remove(t.Context(), digest(t, images[0]).Hex, layout.RemoveOptions{Force: true}); !errors.As(err, &used) || !used.Part {
		t.Errorf("a part of an index: %v", err)
	}
	r, err := s.Remove(t.Context(), "alpine:3.20", layout.RemoveOptions{})
	if err != nil || !slices.Equal(r.Untagged, []string{alpine}) || len(r.Deleted) != 0 {
		t.Errorf("one of two names: %+v, %v", r, err)
	}
	check(t, s)
	put(t, s, src, alpine)
	r, err = s.Remove(t.Context(), id.String(), layout.RemoveOptions{Force: true})
	if err != nil || len(r.Untagged) != 2 || !slices.Equal(r.Deleted, []v1.Hash{id}) || len(r.Collected.Blobs) != 4 || r.Collected.Blobs[0] != id {
		t.Errorf("by ID: %+v, %v", r, err)
	}
	if got := files(t, s); !slices.Equal(got, keep) {
		t.Errorf("left behind: %v, want %v", got, keep)
	}
	check(t, s)
	if r, err = s.Remove(t.Context(), "two", layout.RemoveOptions{}); err != nil || len(r.Deleted) != 1 {
		t.Errorf("the last: %+v, %v", r, err)
	}
	if got := files(t, s); !slices.Equal(got, empty) {
		t.Errorf("an empty store has %v", got)
	}
}

func TestSparseIndex(t *testing.T) {
	s := open(t, t.TempDir())
	x, images := index(t, "linux/amd64", "linux/arm64", "linux/arm/v6")
	src := from(t, x)
	arm64, _ := platform.Parse("arm64")
	img, err := s.Put(t.Context(), src, layout.PutOptions{Names: []string{alpine}, Platforms: []v1.Platform{arm64}})
	if err != nil {
		t.Fatal(err)
	}
	if src.opened[digest(t, images[0])] != 0 {
		t.Error("the manifest of another platform was read")
	}
	infos, err := img.Platforms()
	if err != nil || len(infos) != 3 || infos[0].Present || !infos[1].Present || infos[2].Present || infos[1].Size != img.Size()-img.Descriptor().Size {
		t.Errorf("platforms %+v, %v", infos, err)
	}
	child, err := img.Select(arm64)
	if err != nil || child.Descriptor().Digest != digest(t, images[1]) || child.Name() != alpine || child.Entry() != img {
		t.Errorf("selected %+v, %v", child, err)
	}
	var none *platform.NoMatchError
	amd64, _ := platform.Parse("amd64")
	if _, err := img.Select(amd64); !errors.As(err, &none) || len(none.Have) != 1 {
		t.Errorf("selected what isn't there: %v", err)
	}
	before := files(t, s)
	s390x, _ := platform.Parse("s390x")
	fresh := from(t, x)
	if _, err := s.Put(t.Context(), fresh, layout.PutOptions{Names: []string{other}, Platforms: []v1.Platform{arm64, s390x}}); !errors.As(err, &none) || len(none.Have) != 3 {
		t.Errorf("a platform that is none: %v", err)
	}
	if got := files(t, s); !slices.Equal(got, before) || len(fresh.opened) > 1 {
		t.Errorf("read %v, store %v", fresh.opened, got)
	}
	size := img.Size()
	if _, err := s.Put(t.Context(), src, layout.PutOptions{Names: []string{other}, Platforms: []v1.Platform{amd64}}); err != nil {
		t.Fatal(err)
	}
	if got := find(t, s, alpine).Size(); got <= size {
		t.Errorf("another platform came in, and the size is still %d", got)
	}
	single := from(t, image(t, "linux/arm64", 1, 100))
	if _, err := s.Put(t.Context(), single, layout.PutOptions{Platforms: []v1.Platform{amd64}}); !errors.As(err, &none) {
		t.Errorf("an arm64 image as amd64: %v", err)
	}
	if r, err := s.Remove(t.Context(), alpine, layout.RemoveOptions{}); err != nil || len(r.Deleted) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := s.Remove(t.Context(), other, layout.RemoveOptions{}); err != nil || len(r.Collected.Blobs) != 9 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestLookupNeverAnswersWithAnotherPlatform(t *testing.T) {
	s := open(t, t.TempDir())
	x, images := index(t, "linux/amd64", "linux/arm/v7", "linux/arm64")
	put(t, s, from(t, x), alpine)
	single := image(t, "linux/arm/v6", 1, 100)
	put(t, s, from(t, single), "one")
	lookup := func(name, p string) (v1.Descriptor, error) {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := platform.Parse(p)
		if err != nil {
			t.Fatal(err)
		}
		return s.Lookup(t.Context(), reference.TagNameOnly(named), want)
	}
	root := digest(t, x).String()
	for _, c := range []struct {
		name, platform string
		want           v1.Image
	}{
		{"alpine:3.20", "amd64", images[0]},
		{"alpine:3.20", "linux/arm64/v8", images[2]},
		{"alpine:3.20", "arm", images[1]},
		{"elsewhere/alpine@" + root, "amd64", images[0]},
		{"alpine@" + digest(t, images[2]).String(), "arm64", images[2]},
		{"one", "linux/arm/v6", single},
		{"alpine:3.20", "linux/arm/v6", nil},
		{"alpine:3.20", "linux/arm/v8", images[1]}, // as a registry would answer
		{"alpine:3.20", "s390x", nil},
		{"alpine:3.20", "windows/amd64", nil},
		{"alpine@" + digest(t, images[2]).String(), "amd64", nil},
		{"one", "linux/arm/v7", nil},
		{"one", "arm64", nil},
	} {
		d, err := lookup(c.name, c.platform)
		var none *platform.NoMatchError
		if c.want == nil && !errors.As(err, &none) || c.want != nil && (err != nil || d.Digest != digest(t, c.want)) {
			t.Errorf("Lookup(%s, %s) = %s, %v", c.name, c.platform, d.Digest, err)
		}
		if c.want != nil && (d.Platform == nil || d.Size == 0 || !d.MediaType.IsImage()) {
			t.Errorf("Lookup(%s, %s) = %+v", c.name, c.platform, d)
		}
	}
	var missing *layout.NotFoundError
	if _, err := lookup("alpine", "amd64"); !errors.As(err, &missing) {
		t.Errorf("an unknown tag: %v", err)
	}
}

func TestForeignLayoutsAreListedAndKept(t *testing.T) {
	s := open(t, t.TempDir())
	src := from(t, image(t, "linux/amd64", 1, 100))
	put(t, s, src, alpine)
	d := src.root.Digest.String()
	foreign := `{"schemaVersion":2,"x-future":{"a":1},"annotations":{"who":"umoci"},"manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":` + itoa(src.root.Size) + `,"digest":"` + d + `","x-more":[1,2],"annotations":{"org.opencontainers.image.ref.name":"latest","k":"v"}},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":` + itoa(src.root.Size) + `,"digest":"` + d + `","annotations":{"org.opencontainers.image.ref.name":"quay.io/a/b"}},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":` + itoa(src.root.Size) + `,"digest":"` + d + `","annotations":{"org.opencontainers.image.ref.name":"1.0","io.containerd.image.name":"quay.io/a/c:1.0"}},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"blake3:00"}]}`
	if err := os.WriteFile(filepath.Join(s.Dir(), "index.json"), []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s); !slices.Equal(got, []string{"<none>", "quay.io/a/b:latest", "quay.io/a/c:1.0"}) {
		t.Errorf("listed %v", got)
	}
	img := find(t, s, "latest")
	if img.RefName() != "latest" || img.Size() == 0 || !img.Created().Equal(epoch) {
		t.Errorf("the bare tag: %q, %d bytes, %v", img.RefName(), img.Size(), img.Created())
	}
	if err := s.Tag(img, "mine"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "quay.io/a/c:1.0", layout.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(s.Dir(), "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{`"x-future":{"a":1}`, `"who":"umoci"`, `"x-more":[1,2]`, `"k":"v"`, `"blake3:00"`, `"org.opencontainers.image.ref.name":"latest"`} {
		if !strings.Contains(string(raw), kept) {
			t.Errorf("%s is gone from %s", kept, raw)
		}
	}
	if c, err := s.Collect(t.Context()); err == nil || len(c.Blobs) != 0 {
		t.Errorf("collected beside an entry of an unknown kind: %+v, %v", c, err)
	}
}

func TestCollectLeavesAloneWhatItCannotJudge(t *testing.T) {
	s := open(t, t.TempDir())
	src := from(t, image(t, "linux/amd64", 1, 100))
	put(t, s, src, alpine)
	before := files(t, s)
	var inside layout.Collected
	busy := from(t, image(t, "linux/amd64", 1, 100))
	busy.open = func(_ v1.Descriptor, offset int64, content []byte) (io.ReadCloser, error) {
		var err error
		if inside, err = s.Collect(t.Context()); err != nil {
			t.Error(err)
		}
		return io.NopCloser(strings.NewReader(string(content[offset:]))), nil
	}
	put(t, s, busy, other)
	if !inside.Busy {
		t.Errorf("collected beside a writer: %+v", inside)
	}
	if _, err := s.Remove(t.Context(), other, layout.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	manifest := s.BlobPath(src.root.Digest)
	raw, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-2] = ' '
	if err := os.WriteFile(manifest, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "blobs", "sha256", "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wrong *layout.DigestError
	if _, err := s.Collect(t.Context()); !errors.As(err, &wrong) {
		t.Errorf("a damaged manifest: %v", err)
	}
	if got := files(t, s); len(got) != len(before)+1 {
		t.Errorf("files %v, want %v and the notes", got, before)
	}
}
