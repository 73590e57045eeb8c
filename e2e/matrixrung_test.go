package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wherry-oci/wherry/e2e/base"
)

// matrixRung is one way to run wherry.
type matrixRung struct {
	letter string
	who    account
	flags  []string // of contained; nil: not in a container
	wherry []string // further arguments of build
	steps  bool
}

// command is wherry on a rung; remove is to be called when it has ended.
func (m *matrix) command(ctx context.Context, r *matrixRung, args ...string) (cmd *exec.Cmd, remove func() error, err error) {
	state := filepath.Join(m.dir, "rung-"+r.letter)
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, nil, err
	}
	if err := r.who.makeHome(state); err != nil {
		return nil, nil, err
	}
	tmp := filepath.Join(state, "tmp")
	if err := errors.Join(os.MkdirAll(tmp, 0o777), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
		return nil, nil, err
	}
	cmd = exec.CommandContext(ctx, filepath.Join(m.bin(), "wherry"), args...)
	cmd.Dir, cmd.Env = m.dir, append(r.who.environment(state), "PATH="+os.Getenv("PATH"), "TMPDIR="+tmp, "WHERRY_STORE="+filepath.Join(r.who.home(state), "store"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if r.flags == nil {
		cmd.SysProcAttr.Credential = r.who.credential()
		return cmd, func() error { return nil }, nil
	}
	within, _, err := readContainer(r.flags)
	if err != nil {
		return nil, nil, err
	}
	remove, err = within.contain(ctx, m.suite, state, []string{m.suite.dir}, cmd)
	return cmd, remove, err
}

// wherry runs it on a rung, and returns what it writes.
func (m *matrix) wherry(ctx context.Context, r *matrixRung, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	cmd, remove, err := m.command(ctx, r, args...)
	if err != nil {
		return "", "", err
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	_ = remove() // it has ended by itself, most of the time
	return strings.TrimSpace(out.String()), errs.String(), err
}

// load puts what cases build on into the store of each rung. Rung a makes it.
func (m *matrix) load(ctx context.Context) error {
	root, err := base.Debian(ctx)
	if err != nil {
		return err
	}
	dir, archive := filepath.Join(m.dir, "debian"), filepath.Join(m.dir, "debian.tar")
	err = errors.Join(
		os.Mkdir(dir, 0o755), copyFile(root, filepath.Join(dir, "root.tar"), 0o644),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nADD root.tar /\n"), 0o600),
	)
	if err != nil {
		return err
	}
	first := m.rungs[0]
	for _, args := range [][]string{{"build", "-q", "-t", "debian", dir}, {"save", "-o", archive, "debian"}} {
		if err := m.succeed(ctx, first, args...); err != nil {
			return err
		}
	}
	if err := os.Chmod(archive, 0o644); err != nil {
		return err
	}
	for _, r := range m.rungs {
		for _, file := range []string{archive, filepath.Join(m.dir, "toolbox.tar")} {
			if err := m.succeed(ctx, r, "load", "-q", "-i", file); err != nil {
				return err
			}
		}
	}
	return nil
}

// succeed runs wherry on a rung for what it does.
func (m *matrix) succeed(ctx context.Context, r *matrixRung, args ...string) error {
	if _, errs, err := m.wherry(ctx, r, args...); err != nil {
		return fmt.Errorf("rung %s: wherry %s: %w\n%s", r.letter, args[0], err, errs)
	}
	return nil
}
