package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// builders are wherry and the peers that are there. Who is not is told.
func (b *bench) builders(ctx context.Context) []builder {
	list := []builder{&wherryBuilder{program: b.wherry}}
	if k, err := b.buildkit(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "without buildkitd:", err)
	} else {
		list = append(list, k)
	}
	if a, err := findBuildah(); err != nil {
		fmt.Fprintln(os.Stderr, "without buildah:", err)
	} else {
		list = append(list, a)
	}
	return list
}

type wherryBuilder struct{ program, store string }

func (w *wherryBuilder) start(_ context.Context, dir string) error {
	w.store = filepath.Join(dir, "store")
	return nil
}

func (w *wherryBuilder) archive(project, from, file string) contender {
	return contender{name: "wherry build", args: []string{
		w.program, "--store", w.store, "build", "--build-arg", "BASE=" + from, "-o", "type=oci,dest=" + file, project,
	}}
}

func (w *wherryBuilder) stop() {}

// archive is a build of a folder into a file.
func (k *buildkit) archive(project, from, file string) contender {
	return k.build(project, from, "type=oci,dest="+file)
}

// buildah is called with what makes it fast: overlayfs, and a cache of layers.
type buildah struct{ program, dir string }

func findBuildah() (*buildah, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("it needs root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("buildah")
	return &buildah{program: program}, err
}

func (a *buildah) start(_ context.Context, dir string) error {
	a.dir = dir
	return nil
}

func (a *buildah) archive(project, from, file string) contender {
	call := func(args ...string) []string {
		return append([]string{a.program, "--root", filepath.Join(a.dir, "root"), "--runroot", filepath.Join(a.dir, "run"), "--storage-driver", "overlay"}, args...)
	}
	return contender{
		name: "buildah build --layers, push",
		args: call("build", "--layers", "--isolation", "oci", "--runtime", "runc", "--tls-verify=false", "--build-arg", "BASE="+from, "-t", "reference", project),
		then: call("push", "-q", "reference", "oci-archive:"+file),
	}
}

// stop unmounts what buildah has left mounted, which could not be removed.
func (a *buildah) stop() {
	_ = unix.Unmount(filepath.Join(a.dir, "root", "overlay"), unix.MNT_DETACH) // nothing is there if no build began
}
