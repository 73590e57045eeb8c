package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tool compiles a peer, once, into the user's cache folder: at a version, or at
// the one that go.mod has.
func tool(ctx context.Context, pkg, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	own := version == ""
	if own {
		out, err := goCommand(ctx, "list", "-f", "{{.Module.Version}}", pkg)
		if err != nil {
			return "", err
		}
		version = strings.TrimSpace(out)
	}
	dir := filepath.Join(cache, "wherry-bench", version)
	file := filepath.Join(dir, filepath.Base(pkg))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	fmt.Fprintln(os.Stderr, "compiling", pkg)
	if own {
		return file, compile(ctx, dir, pkg)
	}
	return file, install(ctx, dir, pkg+"@"+version)
}

func install(ctx context.Context, dir, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "install", "-ldflags=-s -w", pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go install %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// compile builds pkg with a copy of our go.mod that may grow by what pkg needs:
// "go install PKG@VERSION" refuses modules with exclude directives.
func compile(ctx context.Context, dir, pkg string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "wherry-bench-mod-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(scratch, name), data, 0o600); err != nil {
			return err
		}
	}
	_, err = goCommand(ctx, "build", "-mod=mod", "-modfile="+filepath.Join(scratch, "go.mod"),
		"-ldflags=-s -w", "-o", dir+string(filepath.Separator), pkg)
	return err
}

func goCommand(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return string(out), nil
}
