//go:build linux

package handover

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	ctdoverlay "github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/moby/buildkit/util/overlay"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// stacked is the same as world, on overlayfs, as the rungs have it where mounting is possible.
type stacked struct {
	snapshots.Snapshotter
	w *world
}

func newStacked(w *world) *stacked {
	w.t.Helper()
	dir := w.t.TempDir()
	if err := overlayutils.Supported(dir); err != nil {
		w.t.Skipf("no overlayfs: %v", err)
	}
	s, err := ctdoverlay.NewSnapshotter(dir)
	w.must(err)
	w.t.Cleanup(func() { w.must(s.Close()) })
	return &stacked{s, w}
}

func (o *stacked) pulled(name, parent string, layer []byte) {
	t, w := o.w.t, o.w
	t.Helper()
	m, err := o.Prepare(t.Context(), "pull "+name, parent)
	w.must(err)
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	w.must(content.WriteBlob(t.Context(), w.store, name, bytes.NewReader(layer), desc))
	_, err = apply.NewFileSystemApplier(w.store).Apply(t.Context(), desc, m)
	w.must(err)
	w.must(o.Commit(t.Context(), name, "pull "+name))
}

// step runs a script and returns the layer that BuildKit makes of it.
func (o *stacked) step(name, parent, script string) []byte {
	t, w := o.w.t, o.w
	t.Helper()
	m, err := o.Prepare(t.Context(), "run "+name, parent)
	w.must(err)
	w.must(mount.WithTempMount(t.Context(), m, func(root string) error {
		sh(t, root, script)
		return nil
	}))
	w.must(o.Commit(t.Context(), name, "run "+name))
	var lower []mount.Mount
	if parent != "" {
		lower, err = o.View(t.Context(), "lower "+name, parent)
		w.must(err)
	}
	upper, err := o.View(t.Context(), "upper "+name, name)
	w.must(err)
	dir, err := overlay.GetUpperdir(lower, upper)
	w.must(err)
	var b bytes.Buffer
	w.must(overlay.WriteUpperdir(t.Context(), &b, dir, lower))
	return b.Bytes()
}

// baseLayers are an image's as registries have them.
func baseLayers(t *testing.T) [][]byte {
	t.Helper()
	dir := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
	}
	long := strings.Repeat("long/", 40) + strings.Repeat("n", 200)
	var above []tar.Header
	for i := range 40 {
		above = append(above, dir(strings.Repeat("long/", i+1), 0o755))
	}
	first := layerOf(t, append(above,
		dir("./", 0o755), dir("./etc/", 0o755), tar.Header{Name: "./etc/passwd", Linkname: "root:x:0:0::/:/bin/sh\n"},
		tar.Header{Name: "./etc/shadow", Linkname: "secret", Mode: 0o640, Gid: 42},
		dir("usr/", 0o755), dir("usr/bin/", 0o755), tar.Header{Typeflag: tar.TypeSymlink, Name: "bin", Linkname: "usr/bin", Mode: 0o777},
		tar.Header{Name: "bin/su", Linkname: "#!su", Mode: 0o4755}, tar.Header{Name: "usr/bin/wall", Linkname: "#!wall", Mode: 0o2755, Gid: 5},
		tar.Header{Name: "usr/bin/ping", Linkname: "#!ping", Mode: 0o755, PAXRecords: map[string]string{paxXattr + capabilityKey: "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		tar.Header{Name: "usr/bin/git", Linkname: "#!git", Mode: 0o755}, tar.Header{Typeflag: tar.TypeLink, Name: "usr/bin/git-add", Linkname: "usr/bin/git", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeLink, Name: "usr/bin/git-rm", Linkname: "usr/bin/git", Mode: 0o755},
		dir("tmp/", 0o1777), dir("dev/", 0o755), tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo", Mode: 0o600}, dir("srv/", 0o700), dir("srv/a/", 0o755),
		tar.Header{Name: "srv/a/1", Linkname: "one"}, tar.Header{Name: "srv/a/2", Linkname: "two"}, tar.Header{Name: "srv/a.b", Linkname: "dot"},
		tar.Header{Name: "srv/grüße \xff", Linkname: "name"}, tar.Header{Name: long, Linkname: "far"},
		tar.Header{Name: "srv/empty"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "srv/dangling", Linkname: "nowhere", Mode: 0o777, Uid: 33},
		dir("home/", 0o755), dir("home/me/", 0o750), tar.Header{Name: "home/me/file", Linkname: "mine", Uid: 1000, Gid: 1000},
	)...)
	second := layerOf(t, dir("etc/", 0o755), dir("srv/", 0o755), tar.Header{Name: "srv/.wh.a.b"}, dir("srv/a/", 0o755), tar.Header{Name: "srv/a/.wh..wh..opq"},
		tar.Header{Name: "srv/a/3", Linkname: "three"}, tar.Header{Name: "etc/passwd", Linkname: "root:x:0:0::/root:/bin/sh\n"})
	return [][]byte{first, second}
}

// settle gives what a script has touched one date, so that layers that were made one after the other can be equal.
func settle(script string) string {
	return "touch -d '1 second ago' /tmp/.before-$$; " + script +
		"\nfind . -mindepth 1 -depth -newer /tmp/.before-$$ -exec touch -h -d @1700000000.25 {} +; rm /tmp/.before-$$"
}

// overlayCases are changes whose layers are equal to those that BuildKit makes on overlayfs, byte for byte.
func overlayCases() map[string]string {
	return map[string]string{
		"nothing":              ":",
		"add, change, remove":  "echo x >>etc/passwd; echo new >etc/new; rm srv/a/3; mkdir -p opt/deep/er; echo y >opt/deep/er/file",
		"remove folders":       "rm -r srv/a home long",
		"folder again":         "rm -r srv/a; mkdir srv/a; echo 4 >srv/a/4",
		"folder again, equal":  "cp -a srv/a /tmp/keep-$$; rm -r srv/a; mv /tmp/keep-$$ srv/a",
		"folder becomes file":  "rm -r srv/a; echo file >srv/a",
		"file becomes folder":  "rm etc/passwd; mkdir etc/passwd; echo in >etc/passwd/file",
		"link becomes folder":  "rm bin; mkdir bin; echo in >bin/file",
		"modes":                "chmod 600 etc/passwd; chmod 700 usr/bin; chmod u+s usr/bin/wall; chmod 1777 srv",
		"modes as they are":    "chmod 644 etc/passwd; chmod -R u+rwX .",
		"owners":               "chown 12:34 etc/shadow srv/a srv/dangling -h; chown -R 7 home",
		"owners as they are":   "chown -R root:root usr/bin/ping usr/bin/su usr; chown 1000:1000 home/me/file",
		"a link to a file":     "ln etc/passwd etc/passwd-; ln srv/empty srv/linked",
		"new links":            "mkdir n; echo l >n/a; ln n/a n/b; ln n/a etc/zz; ln -s a n/s; ln n/s n/t",
		"a name less of links": "rm usr/bin/git-add",
		"links replaced":       "rm usr/bin/git; echo other >usr/bin/git",
		"special files":        "mknod dev/x c 5 1; mknod dev/y b 7 0; mkfifo srv/p",
		"a capability":         "echo c >cap; setcap cap_net_raw+ep cap",
		"capability gone":      "setcap -r usr/bin/ping",
		"same size and time":   "touch -r etc/shadow /tmp/ref-$$; printf SECRET >etc/shadow; touch -r /tmp/ref-$$ etc/shadow; rm /tmp/ref-$$",
		"written as it was":    "touch -r etc/shadow /tmp/ref-$$; printf secret >etc/shadow; touch -r /tmp/ref-$$ etc/shadow; rm /tmp/ref-$$",
		"away and back":        "mv etc/passwd etc/p; mv etc/p etc/passwd; mv srv/dangling x; mv x srv/dangling",
		"renamed":              "mv etc/passwd etc/passwd.old; mv srv/a.b srv/c 2>/dev/null || true",
		"names":                "mkdir -p 'a b'/é; echo 1 >'a b/é/x\ny'; echo 2 >'srv/grüße neu'; mkdir a a.b; echo 1 >a/z; echo 2 >a.b/z; echo 3 >a-",
		"long names":           "(cd long; for i in 1 2 3; do mkdir $(printf '%0200d' $i); echo $i >$(printf '%0200d/%0150d' $i $i); done)",
		"whiteouts made again": "rm srv/a/3; echo 3 >srv/a/3; rm -r srv/a; mkdir -p srv/a/3",
		"sizes":                "head -c 3000000 /dev/zero >big; truncate -s 5M holes; : >none",
		"older files":          "touch -d @1000000000.75 srv/old; touch -d @-5 srv/ancient; touch -h -d @1500000000 srv/dangling",
	}
}

func TestLayersAreThoseOfOverlayfs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	w := newWorld(t, Options{})
	o := newStacked(w)
	parent := ""
	for i, layer := range baseLayers(t) {
		name := fmt.Sprint("base", i)
		w.pulled(name, parent, layer)
		o.pulled(name, parent, layer)
		parent = name
	}
	for name, script := range overlayCases() {
		t.Run(name, func(t *testing.T) {
			w, o := *w, *o
			w.t, o.w = t, &w
			script := settle(script)
			w.step(name, parent, script)
			sameLayer(t, w.layer(parent, name), o.step(name, parent, script))

			// And once more on top of it.
			w.step(name+"+", name, settle("echo more >>etc/more; rm -rf usr"))
			sameLayer(t, w.layer(name, name+"+"), o.step(name+"+", name, settle("echo more >>etc/more; rm -rf usr")))

			// And as it is unpacked from layers.
			w.rebuild(name)
			sameLayer(t, w.layerOfFolders(parent, name), w.layer(parent, name))
		})
	}
}

// TestNewNames writes into files that a step before has given a second name. On overlayfs, and in the layers, they are
// two files.
func TestNewNames(t *testing.T) {
	if os.Geteuid() != 0 || os.Args[0] == confined {
		t.Skip("only root can mount")
	}
	w := newWorld(t, Options{})
	o := newStacked(w)
	parent := ""
	for i, script := range []string{
		"echo a >a; echo x >x; ln x y; mkdir d", "ln a d/b; ln x z; touch -d @1600000000.5 d", "echo more >>d/b; chmod 600 z", "rm a; echo even more >>d/b",
	} {
		name, script := fmt.Sprint(i), settle(script)
		w.step(name, parent, script)
		sameLayer(t, w.layer(parent, name), o.step(name, parent, script))
		parent = name
	}
	var got []string
	for _, name := range []string{"d/b", "x", "y", "z"} {
		got = append(got, read(t, w.view(parent), name))
	}
	if want := []string{"a\nmore\neven more\n", "x\n", "x\n", "x\n"}; !slices.Equal(got, want) {
		t.Errorf("the files have %q, want %q", got, want)
	}
}

// TestLowerLayer has the state folder come with a container's image: nothing in it can be renamed.
func TestLowerLayer(t *testing.T) {
	plainFileSystem(t)
	w := newWorld(t, Options{})
	newStacked(w)
	w.step("a", "", "mkdir d; echo a >d/f")
	w.step("b", "a", "echo b >>d/f")
	w.step("other", "", "mkdir d")
	w.must(w.Close())
	upper, merged := t.TempDir(), t.TempDir()
	m := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + w.options.Dir, "upperdir=" + upper + "/u", "workdir=" + upper + "/w",
	}}
	w.must(os.Mkdir(upper+"/u", 0o700))
	w.must(os.Mkdir(upper+"/w", 0o700))
	w.must(m.Mount(merged))
	t.Cleanup(func() { w.must(mount.UnmountAll(merged, 0)) })
	t.Run("mounted", func(t *testing.T) {
		w := newWorld(t, Options{Dir: merged})
		w.step("c", "b", "echo c >>d/f")
		w.step("d", "c", "echo d >>d/f")
		for name, want := range map[string]string{"a": "a\n", "b": "a\nb\n", "c": "a\nb\nc\n", "d": "a\nb\nc\nd\n"} {
			if got := read(t, w.view(name), "d/f"); got != want {
				t.Errorf("%s has %q", name, got)
			}
		}
		if got := list(t, w.layer("b", "c")); strings.Count(got, "\n") != 2 {
			t.Errorf("layer:\n%s", got)
		}
		w.must(w.Remove(t.Context(), "other"))
	})
}

func (w *world) idNamed(name string) string {
	w.t.Helper()
	if name == "" {
		return ""
	}
	id, _, _, err := w.info(w.t.Context(), name)
	w.must(err)
	return id
}

// layerOfFolders compares the folders of two snapshots, whatever the layers say.
func (w *world) layerOfFolders(lower, upper string) []byte {
	w.t.Helper()
	var b bytes.Buffer
	w.must(w.compareFolders(w.t.Context(), &b, w.idNamed(lower), w.idNamed(upper)))
	return b.Bytes()
}

func sameLayer(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	a, b := filepath.Join(t.TempDir(), "got"), filepath.Join(t.TempDir(), "want")
	for path, layer := range map[string][]byte{a: got, b: want} {
		if err := os.WriteFile(path, []byte(list(t, layer)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := exec.CommandContext(t.Context(), "diff", "-U1", b, a).CombinedOutput()
	t.Errorf("the layer (+) is not overlayfs's (-):\n%s", out)
}
