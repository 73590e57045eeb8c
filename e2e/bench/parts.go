package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
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
	buildctl, stop, err := b.buildkit(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "without buildkitd:", err)
	} else {
		defer stop()
		list = append(list, contender{name: "buildctl, buildkitd", args: append(buildctl,
			"build", "--frontend", "dockerfile.v0", "--local", "context="+project, "--local", "dockerfile="+project,
			"--opt", "build-arg:BASE="+from, "--output", "type=image,name=docker.io/library/tiny:latest",
		)})
	}
	for _, c := range list { // fills the caches
		if _, err := b.time(ctx, c); err != nil {
			return err
		}
	}
	return b.compare(ctx, "build, all cached", list...)
}

// buildkit starts the daemon and returns how to call it.
func (b *bench) buildkit(ctx context.Context) (buildctl []string, stop func(), err error) {
	if os.Getuid() != 0 {
		return nil, nil, errors.New("it needs root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, nil, err
	}
	daemon, err := tool(ctx, "github.com/moby/buildkit/cmd/buildkitd", "")
	if err != nil {
		return nil, nil, err
	}
	client, err := tool(ctx, "github.com/moby/buildkit/cmd/buildctl", "")
	if err != nil {
		return nil, nil, err
	}
	config := filepath.Join(b.dir, "buildkitd.toml")
	text := fmt.Sprintf("[registry.%q]\n  http = true\n[worker.containerd]\n  enabled = false\n", b.registry.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, nil, err
	}
	address := "unix://" + filepath.Join(b.dir, "buildkitd.sock")
	cmd := exec.CommandContext(ctx, daemon, "--config", config, "--root", filepath.Join(b.dir, "buildkitd"), "--addr", address)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	for range 100 {
		if exec.CommandContext(ctx, client, "--addr", address, "debug", "workers").Run() == nil {
			return []string{client, "--addr", address}, stop, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	return nil, nil, errors.New("it does not answer")
}
