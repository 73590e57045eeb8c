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

// buildkit is the daemon, and its client.
type buildkit struct {
	client, daemon string
	config, socket string
	running        *exec.Cmd
}

// buildkit finds or compiles the programs, at the version that wherry has inside.
func (b *bench) buildkit(ctx context.Context) (*buildkit, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("it needs root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, err
	}
	k := &buildkit{config: filepath.Join(b.dir, "buildkitd.toml"), socket: filepath.Join(b.dir, "buildkitd.sock")}
	var err error
	if k.daemon, err = tool(ctx, "github.com/moby/buildkit/cmd/buildkitd", ""); err != nil {
		return nil, err
	}
	if k.client, err = tool(ctx, "github.com/moby/buildkit/cmd/buildctl", ""); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("[registry.%q]\n  http = true\n[worker.containerd]\n  enabled = false\n[worker.oci]\n  snapshotter = \"overlayfs\"\n  binary = \"runc\"\n", b.registry.Addr())
	return k, os.WriteFile(k.config, []byte(text), 0o600)
}

// start runs the daemon with its state in dir, and waits until it answers.
func (k *buildkit) start(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, k.daemon, "--config", k.config, "--root", dir, "--addr", "unix://"+k.socket)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return err
	}
	k.running = cmd
	for range 100 {
		if exec.CommandContext(ctx, k.client, "--addr", "unix://"+k.socket, "debug", "workers").Run() == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	k.stop()
	return errors.New("buildkitd does not answer")
}

func (k *buildkit) stop() {
	_ = k.running.Process.Signal(os.Interrupt)
	_ = k.running.Wait()
}

// build is a build of a folder by the daemon that runs.
func (k *buildkit) build(project, from, output string) contender {
	return contender{name: "buildctl, buildkitd", daemon: k.running.Process.Pid, args: []string{
		k.client, "--addr", "unix://" + k.socket, "build", "--frontend", "dockerfile.v0",
		"--local", "context=" + project, "--local", "dockerfile=" + project, "--opt", "build-arg:BASE=" + from, "--output", output,
	}}
}
