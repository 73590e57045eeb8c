//go:build unix

package registry

import (
	"errors"
	"os"
	"syscall"
)

// keepOwner gives file to whom old belongs: root may log in with another's home
// folder, and must not lock its owner out.
func keepOwner(old, file string) error {
	info, err := os.Stat(old)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return nil
	}
	return os.Chown(file, int(owner.Uid), int(owner.Gid))
}
