//go:build linux

package handover

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Whoever changes a line of a Dockerfile and builds again wants the folder that a descendant of the snapshot has had
// since the last build. Most of it is still what it was in the snapshot: the files that have the inode and the times
// that the snapshot's manifest says. So the folder is wound back: what is new goes, and what was changed or removed
// comes out of the layers. It is taken only from a descendant that nobody has asked for since the snapshots were
// opened; that one is built again if somebody does.

// keepManifest remembers the manifest of a snapshot's folder with its layer, for winding back descendants of it. Where
// that can't be, they are not wound back.
func (s *Snapshots) keepManifest(folder, id string) {
	kept := filepath.Join(s.deltaOf(id), manifestName)
	_ = os.Remove(kept)
	_ = os.Link(filepath.Join(folder, manifestName), kept)
}

// rewind makes dir, which is empty, a folder with what the snapshot of has, if it can be had from a descendant.
func (f *folders) rewind(ctx context.Context, dir, of string) bool {
	want, err := readManifest(filepath.Join(f.s.deltaOf(of), manifestName))
	if err != nil {
		return false
	}
	donor := f.borrow(of)
	if donor == "" {
		return false
	}
	r := &rewinding{s: f.s, root: f.s.rootOf(donor), layers: f.s.chain(of), since: f.s.since(donor, of)}
	worthwhile := r.compare(want)
	f.mu.Lock()
	taken := worthwhile && f.readers[donor] == 0 && unix.Rename(f.s.folderOf(donor), dir) == nil
	f.unlock(donor)
	if !taken {
		return false
	}
	f.s.kill("descendant taken")
	r.root = filepath.Join(dir, rootName)
	if err := r.run(ctx); err != nil { // whatever it is: the layers have it all
		_ = emptyFolder(dir) // whoever goes on finds out if that failed
		return false
	}
	return true
}

func emptyFolder(dir string) error { return errors.Join(removeTree(dir), os.Mkdir(dir, 0o700)) }

// borrow locks the nearest descendant whose folder nobody needs, and returns its id.
func (f *folders) borrow(of string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	best, distance := "", 0
	for _, d := range f.s.descendants(of) {
		if f.busy[d.id] || f.wanted[d.id] || f.readers[d.id] > 0 || !exists(f.s.folderOf(d.id)) {
			continue
		}
		if best == "" || d.distance < distance {
			best, distance = d.id, d.distance
		}
	}
	if best != "" {
		f.busy[best] = true
	}
	return best
}

// rewinding is how one folder is wound back.
type rewinding struct {
	s      *Snapshots
	root   string
	layers []string // the snapshot and its ancestors
	since  []string // the descendants of it that have had the folder

	want    []entry           // what the snapshot has
	list    []change          // what is different: a path that is not wanted, or an entry that is
	restore map[string]*entry // files that layers have to bring
	from    map[string]int    // which of the layers has brought one
	dirs    *comparison       // where names in layers lead
}

// compare finds out what is to be done, and says whether less than half of the snapshot would come from layers.
func (r *rewinding) compare(want *manifest) bool {
	have, err := scan(r.root, r.s.notes)
	// A rebuilt folder has no sockets, since layers have none.
	r.want = slices.DeleteFunc(want.entries, func(e entry) bool { return e.kind() == unix.S_IFSOCK })
	if err == nil {
		r.list, err = difference(have, r.want, judge, r.touched)
	}
	r.restore = map[string]*entry{}
	inodes := map[uint64]bool{}
	for _, c := range r.list {
		if c.now != nil && !c.now.isDir() {
			r.restore[c.path] = c.now
			inodes[c.now.ino] = true
		}
	}
	var all, bring int64
	for i := range r.want {
		e := &r.want[i]
		cost := e.size + 16<<10 // what making a file costs, in bytes
		all += cost
		if e.linked() && inodes[e.ino] && r.restore[e.path] == nil { // another name of one that is brought
			r.restore[e.path] = e
			r.list = append(r.list, change{e.path, e})
		}
		if r.restore[e.path] != nil {
			bring += cost
		}
	}
	return err == nil && bring < all/2
}

// touched says which of the files are in a layer since. The others were compared by content when that was written.
func (r *rewinding) touched(files []*entry) (map[string]bool, error) {
	result := make(map[string]bool, len(files))
	for _, e := range files {
		result[e.path] = false
	}
	dirs := &comparison{root: r.root, dirs: map[string]string{}}
	for _, id := range r.since {
		err := eachHeader(filepath.Join(r.s.deltaOf(id), layerName), func(h *tar.Header) {
			for _, path := range []string{cleanName(h.Name), dirs.resolve(h.Name)} {
				if _, ok := result[path]; ok {
					result[path] = true
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (r *rewinding) run(ctx context.Context) error {
	for _, c := range r.list {
		if err := r.clear(c); err != nil {
			return err
		}
	}
	r.from, r.dirs = map[string]int{}, &comparison{root: r.root, dirs: map[string]string{}}
	for i, id := range slices.Backward(r.layers) {
		if len(r.restore) == 0 {
			break
		}
		if err := r.bring(ctx, i, id); err != nil {
			return err
		}
	}
	for i, id := range r.layers {
		err := applyRest(r.root, filepath.Join(r.s.deltaOf(id), restName), func(path string) bool {
			from, ok := r.from[path]
			return ok && from == i
		})
		if err != nil {
			return err
		}
	}
	return r.finish()
}

// clear makes room for what a path is to be, and makes folders.
func (r *rewinding) clear(c change) error {
	path := filepath.Join(r.root, c.path)
	if c.now != nil && c.now.isDir() {
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			return nil
		}
	}
	if err := removeTree(path); err != nil {
		return err
	}
	if c.now != nil && c.now.isDir() {
		return os.Mkdir(path, 0o700)
	}
	return nil
}

// bring unpacks from one layer the files that it has of those to be restored.
func (r *rewinding) bring(ctx context.Context, i int, id string) error {
	f, err := os.Open(filepath.Join(r.s.deltaOf(id), layerName))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	return r.s.unpackWith(ctx, r.root, bufio.NewReaderSize(f, 256<<10), func(h *tar.Header) (bool, error) {
		path := r.dirs.resolve(h.Name)
		if h.Typeflag == tar.TypeDir || r.restore[path] == nil {
			return false, nil
		}
		r.from[path] = i
		return true, nil
	})
}

// finish gives folders what they had, and compares all with the manifest: the folder is the snapshot's, or is not used.
func (r *rewinding) finish() error {
	for i := range slices.Backward(r.want) {
		if e := &r.want[i]; e.isDir() {
			if err := r.s.dressFolder(filepath.Join(r.root, e.path), e); err != nil {
				return err
			}
		}
	}
	have, err := scan(r.root, r.s.notes)
	if err != nil {
		return err
	}
	if len(have) != len(r.want) {
		return fmt.Errorf("%d files instead of %d", len(have), len(r.want))
	}
	for i := range have {
		is, want := have[i], r.want[i]
		if is.isDir() {
			is.size = want.size
		}
		is.ino, is.ctime, is.nlink = want.ino, want.ctime, want.nlink
		if is != want {
			return fmt.Errorf("%q is not as it was", is.path)
		}
	}
	return nil
}

// dressFolder gives a folder the owner, mode and time of an entry, where it has others.
func (s *Snapshots) dressFolder(path string, e *entry) error {
	is, err := s.lstat(path)
	if err != nil {
		return err
	}
	if is.mode != e.mode || is.uid != e.uid || is.gid != e.gid {
		if err := s.SetOwner(path, Owner{UID: int(e.uid), GID: int(e.gid), Mode: FileMode(e.mode)}); err != nil {
			return err
		}
	}
	if is.mtime != e.mtime {
		return setTime(path, e.mtime)
	}
	return nil
}
