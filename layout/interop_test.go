package layout_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
)

// oci gives an image OCI's media types: in a layout skopeo sees no others.
func oci(img v1.Image) v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// tool runs another image tool, and skips the test where there is none.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeArchive(t *testing.T, s *layout.Store, refs ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := os.WriteFile(file, save(t, s, refs...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func loadFile(t *testing.T, s *layout.Store, file string) []*layout.Image {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images, err := s.Load(t.Context(), f, layout.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func filled(t *testing.T) *layout.Store {
	t.Helper()
	s := open(t, t.TempDir())
	x, _ := index(t, "linux/s390x", "linux/amd64", "linux/arm64")
	put(t, s, from(t, x), alpine)
	put(t, s, from(t, oci(image(t, "linux/amd64", 2, 1000))), "gzip:1") // gzip layers
	put(t, s, from(t, oci(fixed(t, "linux/amd64", "plain"))), "plain:1")
	return s
}

func TestSkopeo(t *testing.T) {
	s := filled(t)
	for _, ref := range []string{"gzip:1", "plain:1"} {
		img := find(t, s, ref)
		var seen struct{ Digest string }
		out := tool(t, "skopeo", "inspect", "oci:"+s.Dir()+":"+img.Name())
		if err := json.Unmarshal([]byte(out), &seen); err != nil || seen.Digest != img.Descriptor().Digest.String() {
			t.Errorf("of the store skopeo sees %s", out)
		}
	}
	tool(t, "skopeo", "inspect", "--raw", "oci:"+s.Dir()+":"+alpine)

	archive := writeArchive(t, s, "alpine:3.20", "gzip:1", "plain:1")
	for _, ref := range []string{"gzip:1", "plain:1", "alpine:3.20"} {
		tool(t, "skopeo", "inspect", "oci-archive:"+archive+":"+find(t, s, ref).Name())
		tool(t, "skopeo", "inspect", "docker-archive:"+archive+":"+ref)
		back := filepath.Join(t.TempDir(), "back.tar")
		config, err := best(t, s, ref).Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"docker-archive", "oci-archive"} {
			tool(t, "skopeo", "copy", "--insecure-policy", "docker-archive:"+archive+":"+ref, format+":"+back+":docker.io/library/"+ref)
			fresh := open(t, t.TempDir())
			images := loadFile(t, fresh, back)
			check(t, fresh)
			if m, err := images[0].Manifest(); err != nil || images[0].Name() != "docker.io/library/"+ref {
				t.Errorf("from skopeo's %s: %q, %v", format, images[0].Name(), err)
			} else if format == "docker-archive" && m.Config.Digest != config.Config.Digest {
				t.Errorf("through skopeo's docker-archive config %s became %s", config.Config.Digest, m.Config.Digest)
			}
			_ = os.Remove(back)
		}
	}
	// All platforms there and back, digest and all.
	back := filepath.Join(t.TempDir(), "back.tar")
	tool(t, "skopeo", "copy", "--insecure-policy", "--all", "oci-archive:"+archive+":"+alpine, "oci-archive:"+back+":"+alpine)
	if img := loadFile(t, open(t, t.TempDir()), back)[0]; !img.IsIndex() || img.Name() != alpine {
		t.Errorf("skopeo's copy of all platforms is %+v, %q", img.Descriptor(), img.Name())
	}
}

func best(t *testing.T, s *layout.Store, ref string) *layout.Image {
	t.Helper()
	img, err := find(t, s, ref).Best()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestPodman(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("podman's store of another user than root has files that only its namespace can remove")
	}
	s := filled(t)
	archive := writeArchive(t, s, "alpine:3.20", "gzip:1", "plain:1")
	root := t.TempDir()
	podman := func(args ...string) string {
		t.Helper()
		return tool(t, "podman", append([]string{"--root", root + "/root", "--runroot", root + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	podman("load", "-q", "-i", archive)
	for _, ref := range []string{"alpine:3.20", "gzip:1", "plain:1"} {
		m, err := best(t, s, ref).Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if id := strings.TrimSpace(podman("image", "inspect", "-f", "{{.Id}}", "docker.io/library/"+ref)); id != m.Config.Digest.Hex {
			t.Errorf("podman has %s as %s, want %s", ref, id, m.Config.Digest.Hex)
		}
	}
	for _, format := range []string{"docker-archive", "oci-archive"} {
		back := filepath.Join(root, format+".tar")
		podman("save", "-q", "--format", format, "-o", back, "docker.io/library/gzip:1")
		fresh := open(t, t.TempDir())
		images := loadFile(t, fresh, back)
		check(t, fresh)
		if images[0].Name() != "docker.io/library/gzip:1" {
			t.Errorf("from podman's %s: %q", format, images[0].Name())
		}
	}
	back := filepath.Join(root, "multi.tar")
	podman("save", "-q", "-m", "-o", back, "docker.io/library/gzip:1", "docker.io/library/plain:1")
	if images := loadFile(t, open(t, t.TempDir()), back); len(images) != 2 {
		t.Errorf("from podman's archive of two: %d images", len(images))
	}
}

func TestUmoci(t *testing.T) {
	s := filled(t)
	seen := strings.Fields(tool(t, "umoci", "ls", "--layout", s.Dir()))
	slices.Sort(seen)
	want := names(t, s)
	slices.Sort(want)
	if !slices.Equal(seen, want) {
		t.Errorf("umoci lists %v, want %v", seen, want)
	}
	tool(t, "umoci", "tag", "--image", s.Dir()+":docker.io/library/plain:1", "bare")
	if img := find(t, s, "bare"); img.RefName() != "bare" || img.Name() != "" {
		t.Errorf("umoci's tag is %q, %q", img.Name(), img.RefName())
	}
	tool(t, "umoci", "gc", "--layout", s.Dir())
	check(t, s)
}
