package e2e

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
)

// The annotations that carry an entry's full name in index.json.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

func hostPlatform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// fullName is a name as docker completes it.
func fullName(ts *testscript.TestScript, text string) string {
	named, err := reference.ParseNormalizedNamed(text)
	ts.Check(err)
	return reference.TagNameOnly(named).String()
}

// cmdBase: base [-foreign] [STORE] writes the toolbox, for both its platforms or for more, under the name toolbox:latest into a store that no wherry made.
func cmdBase(ts *testscript.TestScript, _ bool, args []string) {
	dir, what := ts.Getenv("STORE"), "base"
	if len(args) > 0 && args[0] == "-foreign" {
		what, args = "foreign", args[1:]
	}
	if len(args) > 0 {
		dir = ts.MkAbs(args[0])
	}
	ts.Check(os.MkdirAll(dir, 0o755))
	writeLayout(ts, dir, fullName(ts, "toolbox"), made(ts, []string{what}))
}

func writeLayout(ts *testscript.TestScript, dir, name string, what remote.Taggable) {
	path, err := layout.Write(dir, empty.Index)
	ts.Check(err)
	named := layout.WithAnnotations(map[string]string{refName: name, containerdName: name})
	if index, ok := what.(v1.ImageIndex); ok {
		ts.Check(path.AppendIndex(index, named))
		return
	}
	ts.Check(path.AppendImage(what.(v1.Image), named))
}

// cmdNames: names [STORE] prints the names in index.json, a line each, "<none>" where there is none.
func cmdNames(ts *testscript.TestScript, _ bool, args []string) {
	index, out := openIndex(ts, args), ts.Stdout()
	for _, d := range index.Manifests {
		name := d.Annotations[containerdName]
		if name == "" {
			name = "<none>"
		}
		fmt.Fprintln(out, name)
	}
}

func openIndex(ts *testscript.TestScript, args []string) *v1.IndexManifest {
	dir := ts.Getenv("STORE")
	if len(args) > 0 {
		dir = ts.MkAbs(args[0])
	}
	path, err := layout.FromPath(dir)
	ts.Check(err)
	index, err := path.ImageIndex()
	ts.Check(err)
	manifest, err := index.IndexManifest()
	ts.Check(err)
	return manifest
}

// cmdImage: image WHAT [-store=DIR] [-platform=P] NAME [PATH] shows an image of a store as ggcr reads it:
//
//	id         the digest that the name points at
//	platforms  the platforms of an index
//	config     the config, as JSON
//	manifest   the manifest, as JSON
//	layers     the layers' digests
//	files      every entry: LAYER MODE UID:GID SIZE NAME [-> LINK] [xattr=...]
//	cat        the content of a file
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	what, dir, want := args[0], ts.Getenv("STORE"), hostPlatform()
	for args = args[1:]; strings.HasPrefix(args[0], "-"); args = args[1:] {
		if text, ok := strings.CutPrefix(args[0], "-store="); ok {
			dir = ts.MkAbs(text)
		}
		if text, ok := strings.CutPrefix(args[0], "-platform="); ok {
			p, err := v1.ParsePlatform(text)
			ts.Check(err)
			want = *p
		}
	}
	d, found := entry(ts, dir, args[0])
	switch {
	case neg && found:
		ts.Fatalf("%s is in %s", args[0], dir)
	case neg:
		return
	case !found:
		ts.Fatalf("%s is not in %s", args[0], dir)
	}
	path, err := layout.FromPath(dir)
	ts.Check(err)
	switch what {
	case "id":
		fmt.Fprintln(ts.Stdout(), d.Digest)
	case "platforms":
		ts.Check(showPlatforms(ts.Stdout(), path, d))
	default:
		img, err := pick(path, d, want)
		ts.Check(err)
		ts.Check(show(ts.Stdout(), img, what, args[1:]))
	}
}

// entry finds what a name, or a digest's prefix, stands for in a layout.
func entry(ts *testscript.TestScript, dir, name string) (v1.Descriptor, bool) {
	for _, d := range openIndex(ts, []string{dir}).Manifests {
		if strings.HasPrefix(name, "sha256:") && strings.HasPrefix(d.Digest.String(), name) {
			return d, true
		}
		if !strings.HasPrefix(name, "sha256:") && d.Annotations[containerdName] == fullName(ts, name) {
			return d, true
		}
	}
	return v1.Descriptor{}, false
}

// pick is the image for a platform that d is or holds.
func pick(path layout.Path, d v1.Descriptor, want v1.Platform) (v1.Image, error) {
	if d.MediaType.IsImage() {
		return path.Image(d.Digest)
	}
	root, err := path.ImageIndex()
	if err != nil {
		return nil, err
	}
	index, err := root.ImageIndex(d.Digest)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, child := range manifest.Manifests {
		if child.Platform != nil && child.Platform.Satisfies(want) {
			return index.Image(child.Digest)
		}
	}
	return nil, fmt.Errorf("%s has no %s", d.Digest, want)
}

func showPlatforms(w io.Writer, path layout.Path, d v1.Descriptor) error {
	root, err := path.ImageIndex()
	if err != nil {
		return err
	}
	index, err := root.ImageIndex(d.Digest)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, child := range manifest.Manifests {
		fmt.Fprintln(w, child.Platform)
	}
	return nil
}

func show(w io.Writer, img v1.Image, what string, args []string) error {
	switch what {
	case "config":
		raw, err := img.RawConfigFile()
		fmt.Fprintf(w, "%s\n", raw)
		return err
	case "manifest":
		raw, err := img.RawManifest()
		fmt.Fprintf(w, "%s\n", raw)
		return err
	case "layers":
		manifest, err := img.Manifest()
		if err != nil {
			return err
		}
		for _, layer := range manifest.Layers {
			fmt.Fprintln(w, layer.Digest)
		}
		return nil
	case "files":
		return showFiles(w, img)
	case "cat":
		return showFile(w, img, args[0])
	}
	return fmt.Errorf("image %s: what is that?", what)
}

func showFiles(w io.Writer, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, layer := range layers {
		err := eachEntry(layer.Uncompressed, func(h *tar.Header, _ io.Reader) error {
			fmt.Fprintf(w, "%d %s %d:%d %d %s", i, h.FileInfo().Mode(), h.Uid, h.Gid, h.Size, strings.TrimSuffix(h.Name, "/"))
			if h.Linkname != "" {
				fmt.Fprintf(w, " -> %s", h.Linkname)
			}
			for key := range h.PAXRecords {
				if attribute, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
					fmt.Fprintf(w, " xattr=%s", attribute)
				}
			}
			fmt.Fprintln(w)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachEntry reads a tar to its end.
func eachEntry(open func() (io.ReadCloser, error), see func(*tar.Header, io.Reader) error) (err error) {
	in, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, in)
			return err
		}
		if err != nil {
			return err
		}
		if err := see(h, r); err != nil {
			return err
		}
	}
}

func showFile(w io.Writer, img v1.Image, path string) error {
	found := false
	err := eachEntry(func() (io.ReadCloser, error) { return mutate.Extract(img), nil }, func(h *tar.Header, r io.Reader) error {
		if filepath.Clean("/"+h.Name) != filepath.Clean("/"+path) || found {
			return nil
		}
		found = true
		_, err := io.Copy(w, r)
		return err
	})
	if err == nil && !found {
		return fmt.Errorf("no %s in the image", path)
	}
	return err
}

// cmdArchive: archive FILE docker|oci NAME base|random ... writes an archive as other tools do.
func cmdArchive(ts *testscript.TestScript, _ bool, args []string) {
	what, file := made(ts, args[3:]), ts.MkAbs(args[0])
	if args[1] == "oci" {
		dir := file + ".layout"
		writeLayout(ts, dir, fullName(ts, args[2]), what)
		ts.Check(command(context.Background(), "tar", "-C", dir, "-cf", file, "."))
		return
	}
	ts.Check(writeDockerArchive(file, fullName(ts, args[2]), what.(v1.Image)))
}
