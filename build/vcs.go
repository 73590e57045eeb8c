//go:build linux

package build

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/util/gitutil"
)

var errNoGit = errors.New("git is not installed")

// isInGit looks for the repository that a folder is in, as git does, but needs no git for
// it: without git a reproducible build has to fail, and not to have another result.
func isInGit(dir string) bool {
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target
	}
	for {
		if exists(filepath.Join(dir, ".git")) {
			return true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}

// git runs a command of git on the repository that dir is in, which must not fetch what the
// repository lacks. A failure without a word is "".
func git(ctx context.Context, dir string, args ...string) (string, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return "", errNoGit
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, append([]string{"-C", dir}, args...)...)
	cmd.Env = append(cmd.Environ(), "GIT_ALLOW_PROTOCOL=none", "GIT_NO_LAZY_FETCH=1", "GIT_OPTIONAL_LOCKS=0")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && errs.Len() > 0 {
		reason, _, _ := strings.Cut(strings.TrimPrefix(errs.String(), "fatal: "), "\n")
		return "", errors.New(reason)
	}
	return strings.TrimSpace(out.String()), nil
}

// findCommit lets provenance name the commit that a folder is of, as that of docker does,
// and whether it has changed since. What git would not tell the user is not told.
func (s *sources) findCommit(ctx context.Context, r Request) {
	if _, asked := r.Attest["provenance"]; !asked || s.folder == "" || !isInGit(s.folder) {
		return
	}
	commit, err := git(ctx, s.folder, "rev-parse", "--verify", "--quiet", "HEAD")
	if err != nil || commit == "" {
		return
	}
	changed, err := git(ctx, s.folder, "-c", "core.fsmonitor=false", "status", "--porcelain")
	if err != nil {
		return
	}
	if changed != "" {
		commit += "-dirty"
	}
	s.vcs = map[string]string{"vcs:revision": commit}
	if origin, err := git(ctx, s.folder, "config", "--get", "remote.origin.url"); err == nil {
		if _, err := gitutil.ParseURL(origin); err == nil { // no path on this machine
			s.vcs["vcs:source"] = origin
		}
	}
}
