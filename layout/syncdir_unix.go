//go:build !windows

package layout

import (
	"errors"
	"os"
)

// syncDir brings a folder's names to the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
