package layout_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

// membersOf are the members that thing becomes, found as name.
func membersOf(t testing.TB, thing partial.Describable, name string) []layout.Member {
	t.Helper()
	found, err := layout.Members(t.Context(), from(t, thing), name, func(h v1.Hash) string { return name + "@" + h.String() })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func edit(t testing.TB, s *layout.Store, groups ...[]layout.Member) *layout.Draft {
	t.Helper()
	d, err := s.EditDraft(t.Context(), "reg.corp/app", func(d *layout.Draft) error {
		for _, members := range groups {
			d.Put(members)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A draft lives beside the images in one index.json: neither gets in the other's
// way, what the draft has stays, and nothing of it is left when it goes.
func TestDraftBesideImages(t *testing.T) {
	s := open(t, t.TempDir())
	empty := files(t, s)
	stored := put(t, s, from(t, image(t, "linux/amd64", 1, 100)), "reg.corp/app:amd64")
	here, missing, err := stored.Members(t.Context(), "reg.corp/app:amd64", func(v1.Hash) string { return "" })
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	d := edit(t, s, here, membersOf(t, image(t, "linux/arm64", 1, 100), "reg.corp/app:arm64"))
	amd64, err := platform.Parse("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	o := layout.PutOptions{Names: []string{"reg.corp/whole:1"}, Platforms: []v1.Platform{amd64}}
	if _, err := s.Put(t.Context(), d, o); err != nil { // the very same index, as an image
		t.Fatal(err)
	}
	if got := names(t, s); !slices.Equal(got, []string{"reg.corp/app:amd64", "reg.corp/whole:1"}) {
		t.Errorf("names: %q", got)
	}
	if _, err := s.Find("reg.corp/app:latest"); !errors.As(err, new(*layout.NotFoundError)) {
		t.Errorf("the draft is found as an image: %v", err)
	}
	for _, name := range o.Names {
		if _, err := s.Remove(t.Context(), name, layout.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Remove(t.Context(), "reg.corp/app:amd64", layout.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := s.Draft(t.Context(), "reg.corp/app:latest")
	if err != nil || again.Descriptor().Digest != d.Descriptor().Digest || len(again.Members) != 2 {
		t.Fatalf("%+v, %v", again, err)
	}
	for _, m := range again.Members {
		if len(m.Raw) == 0 {
			t.Errorf("%s has lost its manifest", m.Ref)
		}
	}
	if n := len(files(t, s)) - len(empty); n != 4 { // the list, and manifest, config and layer of one image
		t.Errorf("%d files: %q", n, files(t, s))
	}
	if err := s.RemoveDraft(t.Context(), "reg.corp/app"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveDraft(t.Context(), "reg.corp/app"); !errors.As(err, new(*layout.NotFoundError)) {
		t.Errorf("removed twice: %v", err)
	}
	if left := files(t, s); !slices.Equal(left, empty) {
		t.Errorf("left: %q", left)
	}
}

// The kind of the index follows its members, and what was annotated stays when
// they are put again.
func TestDraftMembers(t *testing.T) {
	s := open(t, t.TempDir())
	amd64, arm64 := image(t, "linux/amd64", 1, 100), image(t, "linux/arm64", 1, 100)
	two, _ := index(t, "linux/amd64", "linux/s390x")
	first := membersOf(t, amd64, "reg.corp/app:amd64")
	d := edit(t, s, first, membersOf(t, arm64, "reg.corp/app:arm64"))
	if d.Descriptor().MediaType != types.DockerManifestList {
		t.Errorf("docker's images are in a %s", d.Descriptor().MediaType)
	}
	first[0].Annotate(v1.Platform{OSVersion: "1", OSFeatures: []string{"x"}})
	first[0].Annotate(v1.Platform{Variant: "v3", OSFeatures: []string{"x", "y"}})
	edit(t, s, first, membersOf(t, two, "reg.corp/two:1"))
	d = edit(t, s, membersOf(t, image(t, "linux/amd64", 1, 100), "reg.corp/app:amd64"), membersOf(t, two, "reg.corp/two:1"))
	if d.Descriptor().MediaType != types.OCIImageIndex {
		t.Errorf("images of both kinds are in a %s", d.Descriptor().MediaType)
	}
	var got []string
	for _, m := range d.Members {
		p := m.Descriptor.Platform
		got = append(got, strings.TrimSuffix(m.Ref, "@"+m.Descriptor.Digest.String())+" "+
			strings.Join(append([]string{p.OS, p.Architecture, p.Variant, p.OSVersion}, p.OSFeatures...), "/"))
	}
	want := []string{
		"reg.corp/app:amd64 linux/amd64/v3/1/x/y", "reg.corp/app:arm64 linux/arm64//",
		"reg.corp/two:1 linux/amd64//", "reg.corp/two:1 linux/s390x//",
	}
	if !slices.Equal(got, want) {
		t.Errorf("members:\n%s", strings.Join(got, "\n"))
	}
	raw, err := d.RawManifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h, _, err := v1.SHA256(strings.NewReader(string(raw))); err != nil || h != d.Descriptor().Digest {
		t.Errorf("the list's digest is %s, not %s", h, d.Descriptor().Digest)
	}
}

// An attestation goes where its image goes, and not where that is left out.
func TestDraftOfAttested(t *testing.T) {
	s := open(t, t.TempDir())
	x, images := index(t, "linux/amd64", "linux/arm64")
	for _, img := range images {
		x = mutate.AppendManifests(x, mutate.IndexAddendum{Add: oci(image(t, "linux/amd64", 1, 50)), Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest(t, img).String()},
		}})
	}
	if all := membersOf(t, x, "reg.corp/app:1"); len(all) != 4 || all[3].Descriptor.Annotations["vnd.docker.reference.digest"] != digest(t, images[1]).String() {
		t.Errorf("members: %+v", all)
	}
	amd64, err := platform.Parse("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Put(t.Context(), from(t, x), layout.PutOptions{Names: []string{"reg.corp/app:1"}, Platforms: []v1.Platform{amd64}})
	if err != nil {
		t.Fatal(err)
	}
	some, missing, err := img.Members(t.Context(), "reg.corp/app:1", func(v1.Hash) string { return "" })
	if err != nil || len(missing) != 1 || missing[0].Architecture != "arm64" {
		t.Fatal(missing, err)
	}
	for _, m := range some {
		if of := m.Descriptor.Annotations["vnd.docker.reference.digest"]; of == digest(t, images[1]).String() || m.Descriptor.Digest == digest(t, images[1]) {
			t.Errorf("%s is there without its image", m.Descriptor.Digest)
		}
	}
}

// Whoever edits a draft at the same time as others loses nothing of theirs.
func TestDraftByMany(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		found := membersOf(t, image(t, "linux/amd64", 1, 50), fmt.Sprintf("reg.corp/app:%d", i))
		wg.Go(func() {
			_, errs[i] = open(t, dir).EditDraft(t.Context(), "reg.corp/app", func(d *layout.Draft) error {
				d.Put(found)
				return nil
			})
		})
	}
	wg.Wait()
	d, err := open(t, dir).Draft(t.Context(), "reg.corp/app")
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	if len(d.Members) != len(errs) {
		t.Errorf("%d members", len(d.Members))
	}
}

// What is annotated, taken out and only passing by.
func TestDraftsAreEdited(t *testing.T) {
	s := open(t, t.TempDir())
	x, images := index(t, "linux/amd64", "linux/arm64")
	x = mutate.AppendManifests(x, mutate.IndexAddendum{Add: oci(image(t, "linux/amd64", 1, 50)), Descriptor: v1.Descriptor{
		Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest(t, images[0]).String()},
	}})
	all := membersOf(t, x, "reg.corp/app:1")
	amd64, err := platform.Parse("linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	if some := layout.MembersFor(all, []v1.Platform{amd64}); len(some) != 2 || some[1].Descriptor.Annotations["vnd.docker.reference.type"] == "" {
		t.Errorf("an image and what attests to it: %+v", some)
	}
	_, err = s.EditDraft(t.Context(), "reg.corp/app", func(d *layout.Draft) error {
		d.Put(all)
		d.Note(map[string]string{"index": "1", "gone": "1"})
		d.Note(map[string]string{"gone": ""})
		d.Members[0].Note(map[string]string{"entry": "1"})
		d.Put(membersOf(t, x, "reg.corp/app:1")) // again: what was noted stays
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.EditDraft(t.Context(), "reg.corp/app", func(d *layout.Draft) error {
		if d.Members[0].Descriptor.Annotations["entry"] != "1" || len(d.Annotations) != 1 {
			t.Errorf("annotations: %+v, %v", d.Members[0].Descriptor, d.Annotations)
		}
		removed := d.Remove(func(m *layout.Member) bool { return m.Descriptor.Digest == digest(t, images[0]) })
		if len(removed) != 2 {
			t.Errorf("removed: %+v", removed)
		}
		return nil
	})
	if err != nil || len(d.Members) != 1 || d.Members[0].Descriptor.Digest != digest(t, images[1]) {
		t.Fatalf("%+v, %v", d, err)
	}
	before := files(t, s)
	passing, err := s.PassingDraft("reg.corp/app", func(d *layout.Draft) error {
		d.Put(all)
		return nil
	})
	if err != nil || len(passing.Members) != 3 {
		t.Fatalf("%+v, %v", passing, err)
	}
	raw, err := passing.RawManifest(t.Context())
	if h, _, hashErr := v1.SHA256(strings.NewReader(string(raw))); err != nil || hashErr != nil || h != passing.Descriptor().Digest {
		t.Errorf("the passing draft is %s, not %s (%v)", h, passing.Descriptor().Digest, err)
	}
	if now := files(t, s); !slices.Equal(now, before) {
		t.Errorf("a passing draft leaves %q", now)
	}
	if names, err := s.DraftNames(); err != nil || !slices.Equal(names, []string{"reg.corp/app:latest"}) {
		t.Errorf("drafts: %q, %v", names, err)
	}
}
