//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Options say where snapshots are kept, and what the process can do. The zero value lacks only Dir.
type Options struct {
	// Dir is the state folder, on one file system. It is made where it is missing. Only one process may have it open.
	Dir string

	// OwnersAside is for a process that can't chown: owners, modes, devices and file capabilities are noted beside
	// the files, and a file of which nothing is noted is root's. See SetOwner.
	OwnersAside bool

	// ModesKept says of OwnersAside that only owners and devices have to be noted: the process is root of a user
	// namespace with one id, may read whatever its files' modes are, and can set all modes and capabilities. The folder
	// Dir has to be closed to other users of the machine then, for whom a setuid program would be the process's user's.
	ModesKept bool

	// Unread says of a view's key that its folder is read only while somebody has it by Hold. By default the folder
	// of a view is kept for it until the view is removed, and children of what is viewed get copies. BuildKit's
	// cache records keep a view of each snapshot that was ever mounted, under keys that end in "-view".
	Unread func(key string) bool
}

// Snapshots is a containerd snapshotter of plain folders. All mounts that it returns are one bind mount, writable, of a
// folder that is there for an active snapshot, and that Hold has to be asked for with a view of Options.Unread.
//
// Nothing is synced but its database, and that when it is closed: a caller that must survive a power failure syncs the
// file system afterwards. A process that is killed loses no committed snapshot.
type Snapshots struct {
	options Options
	meta    *storage.MetaStore
	notes   *notes   // nil: owners are given to the files
	applied sync.Map // ids of active snapshots whose delta is the layer that was applied to them
	folders folders

	noDevices bool // devices can't be made, and are left out of what is unpacked

	mu    sync.Mutex
	known map[string]record  // by id
	views map[string]func()  // holds of views, by the view's id
	kill  func(point string) // a test's: called where a process may be killed
}

var _ snapshots.Snapshotter = (*Snapshots)(nil)

// record is what the database has of a snapshot, by its id.
type record struct {
	kind   snapshots.Kind
	parent string // its id, "" for none
}

// Open opens the snapshots in a folder, and removes what a killed process has left half-made.
func Open(o Options) (*Snapshots, error) {
	s := &Snapshots{options: o, known: map[string]record{}, views: map[string]func(){}, kill: func(string) {}}
	for _, dir := range []string{"folders", "deltas"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("open the snapshots: %w", err)
		}
	}
	s.folders.init(s)
	var err error
	if s.noDevices, err = DevicesRefused(filepath.Join(o.Dir, "folders")); err != nil {
		return nil, fmt.Errorf("open the snapshots: %w", err)
	}
	if o.OwnersAside {
		s.noDevices = false // they are noted
		if s.notes, err = openNotes(filepath.Join(o.Dir, "owners"), o.ModesKept); err != nil {
			return nil, fmt.Errorf("open the noted owners: %w", err)
		}
	}
	s.meta, err = storage.NewMetaStore(filepath.Join(o.Dir, "metadata.db"), func(b *bolt.Options) error {
		b.NoSync, b.NoFreelistSync, b.FreelistType = true, true, bolt.FreelistMapType
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the snapshots' database: %w", err)
	}
	if err := errors.Join(s.load(context.Background()), s.sweep()); err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshots in %q: %w", o.Dir, err), s.meta.Close())
	}
	return s, nil
}

// DevicesRefused tries whether devices can't be made in the folder dir, which exists: root in a container or a user namespace
// may have no right to, or the file system no such kind of file. The error is of a failure that says nothing of that.
func DevicesRefused(dir string) (bool, error) {
	path := filepath.Join(dir, "new-device")
	err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOTSUP):
		return true, nil
	case errors.Is(err, unix.EEXIST): // a process was killed just here
		err = nil
	}
	return false, errors.Join(pathError("mknod", path, err), os.Remove(path))
}

// load reads which snapshots there are. One that was being prepared when the process was killed has no folder; nobody
// has been told of it. (One whose folder lacks but the root has lent that to a step, and gets it back.)
func (s *Snapshots) load(ctx context.Context) error {
	return s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		keys := map[string]string{} // a snapshot's name, to its id
		infos := map[string]snapshots.Info{}
		err := storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			id, _, _, err := storage.GetInfo(ctx, info.Name)
			keys[info.Name], infos[id] = id, info
			return err
		})
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		for id, info := range infos {
			owns := info.Kind == snapshots.KindActive || info.Kind == snapshots.KindView && info.Parent == ""
			if owns && !exists(s.folderOf(id)) {
				if _, _, err := storage.Remove(ctx, info.Name); err != nil {
					return err
				}
				continue
			}
			s.known[id] = record{info.Kind, keys[info.Parent]}
		}
		return nil
	})
}

// Close closes the database. Folders and layers are as they were left.
func (s *Snapshots) Close() error {
	_, tx, err := s.meta.TransactionContext(context.Background(), false)
	if err != nil {
		return nil //nolint:nilerr // it is closed, and stays so
	}
	if b, ok := tx.(*bolt.Tx); ok {
		err = b.DB().Sync()
	}
	return errors.Join(err, tx.Rollback(), s.meta.Close())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

const (
	rootName     = "root"
	manifestName = "manifest"
	partial      = ".partial" // of a name: not complete
)

func (s *Snapshots) folderOf(id string) string { return filepath.Join(s.options.Dir, "folders", id) }
func (s *Snapshots) rootOf(id string) string   { return filepath.Join(s.folderOf(id), rootName) }
func (s *Snapshots) deltaOf(id string) string  { return filepath.Join(s.options.Dir, "deltas", id) }

// mounts is the one bind mount of a snapshot's folder; a view's is that of its parent.
func (s *Snapshots) mounts(id string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: s.rootOf(s.shownBy(id)), Options: []string{"rbind", "rw"}}}
}

// shownBy is the snapshot whose folder a snapshot shows.
func (s *Snapshots) shownBy(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.known[id]; r.kind == snapshots.KindView && r.parent != "" {
		return r.parent
	}
	return id
}

// locate returns the snapshot whose folder mounts are, and the folder.
func (s *Snapshots) locate(mounts []mount.Mount) (id, root string, err error) {
	if len(mounts) != 1 || mounts[0].Type != "bind" {
		return "", "", fmt.Errorf("not a folder of a snapshot: %v", mounts)
	}
	if id = s.idOf(mounts[0].Source); id == "" {
		return "", "", fmt.Errorf("not a folder of a snapshot: %q", mounts[0].Source)
	}
	return id, mounts[0].Source, nil
}

// idOf returns the id of the snapshot whose root folder this is, else "".
func (s *Snapshots) idOf(root string) string {
	id := filepath.Base(filepath.Dir(root))
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[id]; !ok || s.rootOf(id) != filepath.Clean(root) {
		return ""
	}
	return id
}

// chain is a snapshot and its ancestors.
func (s *Snapshots) chain(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for ; id != ""; id = s.known[id].parent {
		ids = append(ids, id)
	}
	return ids
}

// descendant is a committed snapshot, and how far it is from its ancestor.
type descendant struct {
	id       string
	distance int
}

func (s *Snapshots) descendants(of string) (list []descendant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.known {
		if r.kind != snapshots.KindCommitted {
			continue
		}
		parent, distance := r.parent, 1
		for parent != "" && parent != of {
			parent, distance = s.known[parent].parent, distance+1
		}
		if parent == of {
			list = append(list, descendant{id, distance})
		}
	}
	return list
}

// since are a snapshot and its ancestors up to of, which is left out.
func (s *Snapshots) since(id, of string) []string {
	chain := s.chain(id)
	if i := slices.Index(chain, of); i >= 0 {
		return chain[:i]
	}
	return chain
}

// isDelta says that a layer makes the upper snapshot out of the lower one, and is there.
func (s *Snapshots) isDelta(lower, upper string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.known[upper]
	return r.kind == snapshots.KindCommitted && r.parent == lower
}
