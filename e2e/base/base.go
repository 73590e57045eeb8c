// Package base makes the images that stories, demo and benchmarks build on, out
// of nothing but Go: the toolbox program compiled for each platform, a passwd
// and a group file. The same source gives the same digests.
package base

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const toolbox = "github.com/wherry-oci/wherry/e2e/toolbox"

// passwd has two people: app, with a home and supplementary groups, and bare, with neither.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nbare:x:1001:1001:bare:/:/bin/sh\n"
	group  = "root:x:0:\napp:x:1000:\nbare:x:1001:\nwheel:x:10:app\nstaff:x:50:app\n"
)

// Platforms are those that Index compiles for.
func Platforms() []v1.Platform {
	return []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
}

// Foreign are those that an emulator is needed for on every machine that has one of Platforms, at most one excepted.
func Foreign() []v1.Platform {
	return append(Platforms(), v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, v1.Platform{OS: "linux", Architecture: "riscv64"})
}

// Index compiles the toolbox for all Platforms and returns the index of their
// images. It calls the go command, in the current module.
func Index(ctx context.Context) (v1.ImageIndex, error) { return IndexFor(ctx, Platforms()) }

// IndexFor is Index for other platforms.
func IndexFor(ctx context.Context, platforms []v1.Platform) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range platforms {
		img, err := image(ctx, p)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &p},
		})
	}
	return index, nil
}

func image(ctx context.Context, p v1.Platform) (v1.Image, error) {
	program, names, err := compile(ctx, p)
	if err != nil {
		return nil, err
	}
	root, err := rootFS(program, names)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(root)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, Created: v1.Time{Time: time.Unix(1750000000, 0).UTC()},
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
			Cmd: []string{"/bin/sh"},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{
		Created: v1.Time{Time: time.Unix(1750000000, 0).UTC()}, CreatedBy: "COPY toolbox /bin/",
	}})
}

// compile builds the toolbox for p and asks the one for this machine which commands it has.
func compile(ctx context.Context, p v1.Platform) (program []byte, names []string, err error) {
	dir, err := os.MkdirTemp("", "wherry-toolbox-")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "toolbox")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", file, toolbox)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Architecture, "GOARM="+strings.TrimPrefix(p.Variant, "v"))
	if out, err := build.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("compile the toolbox for %s: %w\n%s", p, err, out)
	}
	if program, err = os.ReadFile(file); err != nil {
		return nil, nil, err
	}
	list := exec.CommandContext(ctx, "go", "run", toolbox, "--list")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("list the toolbox's commands: %w", err)
	}
	return program, strings.Fields(string(out)), nil
}

// rootFS is the image's one layer as a tar.
func rootFS(program []byte, names []string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data string) error {
		h.Size, h.ModTime, h.Format = int64(len(data)), time.Unix(1750000000, 0), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := io.WriteString(w, data)
		return err
	}
	var err error
	for _, dir := range []string{"bin/", "etc/", "home/", "root/", "usr/", "usr/bin/", "var/"} {
		err = errors.Join(err, add(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, ""))
	}
	err = errors.Join(err,
		add(tar.Header{Name: "home/app/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 1000, Gid: 1000}, ""),
		add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, ""),
		add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, passwd),
		add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, group),
		add(tar.Header{Name: "bin/toolbox", Typeflag: tar.TypeReg, Mode: 0o755}, string(program)),
	)
	for _, name := range names {
		err = errors.Join(err, add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "toolbox", Mode: 0o777}, ""))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("pack the toolbox: %w", err)
	}
	return buf.Bytes(), nil
}
