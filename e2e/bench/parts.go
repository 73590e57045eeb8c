package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// start is what every command costs before it does anything.
func (b *bench) start(ctx context.Context) error {
	list := []contender{{name: "wherry version", args: []string{b.wherry, "version"}}}
	if skopeo, err := exec.LookPath("skopeo"); err == nil {
		list = append(list, contender{name: "skopeo --version", args: []string{skopeo, "--version"}})
	}
	return b.compare(ctx, "start", list...)
}

func (b *bench) pull(ctx context.Context, store, image string) error {
	cmd := exec.CommandContext(ctx, b.wherry, "--store", store, "pull", "-q", b.registry.Addr()+"/"+image)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pull %s: %w\n%s", image, err, out)
	}
	return nil
}

// cachedBuild is a tiny build of which everything is in the cache.
func (b *bench) cachedBuild(ctx context.Context) error {
	project := filepath.Join(b.dir, "project")
	dockerfile := "ARG BASE\nFROM ${BASE}\nRUN echo hello > /hello\nCOPY file /\n"
	err := errors.Join(
		os.Mkdir(project, 0o755),
		os.WriteFile(filepath.Join(project, "Dockerfile"), []byte(dockerfile), 0o600),
		os.WriteFile(filepath.Join(project, "file"), []byte("file\n"), 0o600),
	)
	if err != nil {
		return err
	}
	from := b.registry.Addr() + "/toolbox"
	list := []contender{{name: "wherry build", args: []string{
		b.wherry, "--store", filepath.Join(b.dir, "build"), "build", "-t", "tiny", "--build-arg", "BASE=" + from, project,
	}}}
	if k, err := b.buildkit(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "without buildkitd:", err)
	} else {
		if err := k.start(ctx, filepath.Join(b.dir, "buildkitd")); err != nil {
			return err
		}
		defer k.stop()
		list = append(list, k.build(project, from, "type=image,name=docker.io/library/tiny:latest"))
	}
	for _, c := range list { // fills the caches
		if _, err := b.time(ctx, c); err != nil {
			return err
		}
	}
	return b.compare(ctx, "build, all cached", list...)
}
