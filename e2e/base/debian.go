package base

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Debian makes the tar of a minimal Debian root file system with mmdebstrap, once, and
// keeps it in the user's cache. It returns the file's path.
func Debian(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "wherry-e2e", "debian-bookworm.tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	// mmdebstrap goes by the ending, so the unfinished file has the same.
	part := filepath.Join(filepath.Dir(file), "part.tar")
	out, err := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "bookworm", part).CombinedOutput()
	if err != nil {
		_ = os.Remove(part) // there may be none
		return "", fmt.Errorf("make a Debian root: %w\n%s", err, out)
	}
	return file, os.Rename(part, file)
}
