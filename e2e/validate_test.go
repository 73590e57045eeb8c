package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdValidate: validate [STORE] says whether a store is a valid image layout: every name once, every entry whole, every
// blob what its name says, as ggcr sees it.
func cmdValidate(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.Getenv("STORE")
	if len(args) > 0 {
		dir = ts.MkAbs(args[0])
	}
	err := validStore(dir)
	if neg {
		if err == nil {
			ts.Fatalf("%s is valid", dir)
		}
		return
	}
	ts.Check(err)
}

func validStore(dir string) error {
	path, err := layout.FromPath(dir)
	if err != nil {
		return err
	}
	index, err := path.ImageIndex()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	errs := []error{validBlobs(dir)}
	if text, err := os.ReadFile(filepath.Join(dir, "oci-layout")); err != nil || !strings.Contains(string(text), `"1.0.0"`) {
		errs = append(errs, fmt.Errorf("oci-layout: %q, %w", text, err))
	}
	seen := map[string]bool{}
	for _, d := range manifest.Manifests {
		called := d.Annotations[containerdName]
		if called != "" && seen[called] {
			errs = append(errs, fmt.Errorf("%s is there twice", called))
		}
		seen[called] = true
		if err := validEntry(dir, index, d); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", d.Digest, called, err))
		}
	}
	return errors.Join(errs...)
}

// validEntry checks an image, or those images of an index that are there: an index may be sparse.
func validEntry(dir string, in v1.ImageIndex, d v1.Descriptor) error {
	if d.MediaType.IsImage() {
		img, err := in.Image(d.Digest)
		if err != nil {
			return err
		}
		return validImage(img)
	}
	index, err := in.ImageIndex(d.Digest)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	present := 0
	for _, child := range manifest.Manifests {
		if child.Platform != nil && child.Platform.OS == "unknown" {
			continue // an attestation: its layers are no file systems
		}
		if !complete(dir, child.Digest) {
			continue
		}
		if err := validEntry(dir, index, child); err != nil {
			return fmt.Errorf("%s: %w", child.Platform, err)
		}
		present++
	}
	if present == 0 {
		return errors.New("none of its images is there")
	}
	return nil
}

// validImage checks an image as ggcr does; an image with a layer that is not in gzip, which ggcr's validate can't read,
// layer by layer.
func validImage(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(layers, func(l v1.Layer) bool {
		mediaType, err := l.MediaType()
		return err == nil && (mediaType == types.OCIUncompressedLayer || mediaType == types.DockerUncompressedLayer || mediaType == types.OCILayerZStd)
	}) {
		return validate.Image(img)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if len(layers) != len(config.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers, %d diff ids", len(layers), len(config.RootFS.DiffIDs))
	}
	for i, layer := range layers {
		hash := sha256.New()
		if err := eachByte(layer, hash); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != config.RootFS.DiffIDs[i].Hex {
			return fmt.Errorf("layer %d is %s, not %s", i, got, config.RootFS.DiffIDs[i])
		}
	}
	return nil
}

func eachByte(layer v1.Layer, w io.Writer) (err error) {
	in, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	_, err = io.Copy(w, in)
	return err
}

// complete says whether a manifest and all that it names is in a layout.
func complete(dir string, digest v1.Hash) bool {
	blob := func(h v1.Hash) string { return filepath.Join(dir, "blobs", h.Algorithm, h.Hex) }
	file, err := os.Open(blob(digest))
	if err != nil {
		return false
	}
	defer file.Close()
	manifest, err := v1.ParseManifest(file)
	if err != nil {
		return false
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		if _, err := os.Stat(blob(d.Digest)); err != nil {
			return false
		}
	}
	return true
}

func validBlobs(dir string) error {
	return filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		hash := sha256.New()
		if _, err := io.Copy(hash, file); err != nil {
			return err
		}
		if hex.EncodeToString(hash.Sum(nil)) != entry.Name() {
			return fmt.Errorf("%s is not what its name says", path)
		}
		return nil
	})
}

// cmdSeal: seal [STORE] prints all that a store holds; build state and locks are no content.
func cmdSeal(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.Getenv("STORE")
	if len(args) > 0 {
		dir = ts.MkAbs(args[0])
	}
	fmt.Fprint(ts.Stdout(), sealOf(dir))
}

// sealOf lists a store's blobs and entries. No store and an empty one are the same.
func sealOf(dir string) string {
	var lines []string
	_ = filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			if info, err := entry.Info(); err == nil {
				lines = append(lines, fmt.Sprintf("%s %d\n", entry.Name(), info.Size()))
			}
		}
		return nil
	})
	slices.Sort(lines)
	return strings.Join(lines, "") + entriesOf(dir)
}

// entriesOf lists a store's entries.
func entriesOf(dir string) string {
	path, err := layout.FromPath(dir)
	if err != nil {
		return ""
	}
	index, err := path.ImageIndex()
	if err != nil {
		return ""
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return ""
	}
	var list strings.Builder
	for _, d := range manifest.Manifests {
		fmt.Fprintf(&list, "%s %v\n", d.Digest, d.Annotations)
	}
	return list.String()
}

// cmdLinks: links NAME requires that the last layer of an image is a hard link, not a copy, of what the build engine has.
func cmdLinks(ts *testscript.TestScript, _ bool, args []string) {
	d, ok := entry(ts, ts.Getenv("STORE"), args[0])
	if !ok {
		ts.Fatalf("no %s", args[0])
	}
	path, err := layout.FromPath(ts.Getenv("STORE"))
	ts.Check(err)
	img, err := pick(path, d, hostPlatform())
	ts.Check(err)
	manifest, err := img.Manifest()
	ts.Check(err)
	last := manifest.Layers[len(manifest.Layers)-1].Digest
	info, err := os.Stat(filepath.Join(ts.Getenv("STORE"), "blobs", last.Algorithm, last.Hex))
	ts.Check(err)
	if n := info.Sys().(*syscall.Stat_t).Nlink; n < 2 {
		ts.Fatalf("the layer %s has %d link", last, n)
	}
}

func writeDockerArchive(file, called string, img v1.Image) error {
	ref, err := name.NewTag(called)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, ref, img)
}
