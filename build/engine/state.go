//go:build linux

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// state is the engine's folder. Its databases are not synced on every
// transaction, as BuildKit would (some 80 times in a cached build): kill -9 can't
// harm them, since the kernel has what was written, but a power failure can. So
// a marker says which boot has them open. A state that some other boot left open
// is dropped: the build cache may be lost, but is never wrong.
type state struct {
	dir     string
	crashed bool        // an engine of this boot was killed: it has left things that nobody refers to
	grown   atomic.Bool // a snapshot was added: files outside the databases need syncing too
}

// markerName holds the boot id while the state is open, and after a crash.
const markerName = "open-in-boot"

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

func openState(dir string, notice func(string)) (*state, error) {
	if _, err := mkdir(dir); err != nil {
		return nil, err
	}
	s := &state{dir: dir}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	before, err := os.ReadFile(s.path(markerName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !bytes.Equal(before, boot):
		if notice != nil {
			notice("the machine went down while a build was running: starting with an empty build cache")
		}
		if err := s.drop(); err != nil {
			return nil, fmt.Errorf("drop the build cache: %w", err)
		}
	default:
		s.crashed = true
		return s, nil // the marker stands
	}
	return s, writeSynced(s.path(markerName), boot)
}

// drop empties the state folder.
func (s *state) drop() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(s.path(e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// close takes the marker away once all that was written is on the disk. The databases
// were synced as they were closed; what grew beside them has not been.
func (s *state) close() error {
	if s.grown.Load() {
		if err := syncfs(s.dir); err != nil {
			return fmt.Errorf("sync the build state: %w", err)
		}
	}
	return os.Remove(s.path(markerName))
}

// boltOptions are those of BuildKit's own databases, without its syncs.
func boltOptions() *bolt.Options {
	return &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true, NoSync: true}
}

func bootID() ([]byte, error) { return os.ReadFile("/proc/sys/kernel/random/boot_id") }

func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
