//go:build linux

package handover

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// rootMode is the mode of every snapshot's root, which no layer tells, when it is handed out. On overlayfs, too, a step
// that changes it changes nothing for the next one.
const rootMode = 0o755

// folders says which folders are there, who reads them, and who is working on them. Each is the folder of one
// snapshot; a child or a rebuild takes it away only from a committed one, whose layers are kept, while nobody reads it.
type folders struct {
	s       *Snapshots
	mu      sync.Mutex
	changed *sync.Cond     // readers or busy has changed
	readers map[string]int // by id
	busy    map[string]bool
	wanted  map[string]bool // somebody has asked for them since the snapshots were opened
}

func (f *folders) init(s *Snapshots) {
	f.s, f.readers, f.busy, f.wanted = s, map[string]int{}, map[string]bool{}, map[string]bool{}
	f.changed = sync.NewCond(&f.mu)
}

// hold has the folder of a committed snapshot stay until release is called.
func (f *folders) hold(ctx context.Context, id string) (release func(), err error) {
	f.lock(id)
	f.wanted[id] = true
	if !exists(f.s.folderOf(id)) {
		f.mu.Unlock()
		err = f.build(ctx, id, id)
		f.mu.Lock()
	}
	if err == nil {
		f.readers[id]++
	}
	f.unlock(id)
	if err != nil {
		return nil, err
	}
	var once sync.Once
	return func() { once.Do(func() { f.leave(id) }) }, nil
}

func (f *folders) leave(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers[id]--; f.readers[id] == 0 {
		delete(f.readers, id)
	}
	f.changed.Broadcast()
}

// want has the folder of a snapshot not be given away for others' sake.
func (f *folders) want(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted[id] = true
}

// lock waits until nobody else works on a folder, and leaves f.mu locked.
func (f *folders) lock(id string) {
	f.mu.Lock()
	for f.busy[id] {
		f.changed.Wait()
	}
	f.busy[id] = true
}

// unlock ends what lock has begun; f.mu is locked.
func (f *folders) unlock(id string) {
	delete(f.busy, id)
	f.changed.Broadcast()
	f.mu.Unlock()
}

// give makes the folder of a new active snapshot: the parent's own, if that can be. That is the whole handover: the
// manifest of what the folder is goes with it.
func (f *folders) give(ctx context.Context, id, parent string) error {
	if parent == "" {
		return f.empty(id)
	}
	f.lock(parent)
	taken, err := f.takeOver(id, parent)
	f.unlock(parent)
	if err != nil || taken {
		return err
	}
	return f.build(ctx, id, parent)
}

// takeOver gives the parent's folder to a child, if it is there and nobody reads it.
func (f *folders) takeOver(id, parent string) (bool, error) {
	from := f.s.folderOf(parent)
	if f.readers[parent] > 0 || !exists(from) {
		return false, nil
	}
	if describes(filepath.Join(from, manifestName)) != parent { // a process was killed as it committed it
		if err := f.describe(from, parent); err != nil {
			return false, err
		}
	}
	if err := os.Chmod(f.s.rootOf(parent), rootMode); err != nil {
		return false, err
	}
	f.s.kill("before takeover")
	err := os.Rename(from, f.s.folderOf(id))
	if errors.Is(err, unix.EXDEV) { // it is in a lower layer of the overlayfs that a container has as its root
		return false, nil
	}
	f.s.kill("after takeover")
	return err == nil, err
}

func (f *folders) empty(id string) error {
	dir, err := f.newFolder()
	if err != nil {
		return err
	}
	err = os.Mkdir(filepath.Join(dir, rootName), rootMode)
	if err == nil {
		err = (&manifest{}).write(filepath.Join(dir, manifestName))
	}
	if err != nil {
		return errors.Join(err, removeTree(dir))
	}
	return f.arrive(dir, id)
}

// newFolder is where a folder is made that is nobody's yet.
func (f *folders) newFolder() (string, error) {
	return os.MkdirTemp(filepath.Join(f.s.options.Dir, "folders"), "new-")
}

// arrive makes a new folder that of a snapshot.
func (f *folders) arrive(dir, id string) error {
	if err := os.Chmod(filepath.Join(dir, rootName), rootMode); err != nil {
		return errors.Join(err, removeTree(dir))
	}
	f.s.kill("before arrival")
	if err := os.Rename(dir, f.s.folderOf(id)); err != nil {
		return errors.Join(err, removeTree(dir))
	}
	return nil
}

// build makes a folder with what the snapshot of has, for the snapshot id. Folders that somebody works on are passed
// over, and those that nobody reads are taken rather than copied.
func (f *folders) build(ctx context.Context, id, of string) error {
	dir, err := f.newFolder()
	if err != nil {
		return err
	}
	if !f.rewind(ctx, dir, of) {
		err = f.replay(ctx, dir, f.s.chain(of))
	}
	if err == nil {
		err = f.describe(dir, of)
	}
	if err != nil {
		return errors.Join(err, removeTree(dir))
	}
	f.s.keepManifest(dir, of)
	return f.arrive(dir, id)
}

// replay makes in dir, which is empty, what the first of a chain of snapshots has, out of the folder of the nearest one
// that has one and the layers since.
func (f *folders) replay(ctx context.Context, dir string, chain []string) error {
	n, err := f.start(ctx, dir, chain)
	for i := n - 1; i >= 0 && err == nil; i-- {
		if err = ctx.Err(); err == nil {
			err = f.s.applyDelta(ctx, filepath.Join(dir, rootName), f.s.deltaOf(chain[i]))
		}
	}
	return err
}

// describe writes the manifest of a folder that has what the snapshot of has.
func (f *folders) describe(dir, of string) error {
	time.Sleep(tick()) // so that no file is taken for one that may still change unseen
	began := time.Now()
	entries, err := scan(filepath.Join(dir, rootName), f.s.notes)
	if err != nil {
		return err
	}
	return newManifest(of, entries, began).write(filepath.Join(dir, manifestName))
}

// start puts the root of the first of the chain that has a folder into dir, and returns which one that is; after the
// last of the chain comes the empty folder.
func (f *folders) start(ctx context.Context, dir string, chain []string) (int, error) {
	root := filepath.Join(dir, rootName)
	for i, id := range chain {
		taken, held := f.takeOrRead(dir, id)
		if taken {
			return i, nil
		}
		if held {
			defer f.leave(id)
			if err := os.Mkdir(root, 0o700); err != nil {
				return 0, err
			}
			return i, copyTree(ctx, root, f.s.rootOf(id), f.s.notes)
		}
	}
	return len(chain), os.Mkdir(root, rootMode)
}

// takeOrRead makes to, which is empty, the folder of a snapshot, or holds it if others read it, or does neither if it is not
// there or somebody works on it.
func (f *folders) takeOrRead(to, id string) (taken, held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.busy[id] || !exists(f.s.folderOf(id)):
		return false, false
	case f.readers[id] > 0:
		f.readers[id]++
		return false, true
	case unix.Rename(f.s.folderOf(id), to) != nil: // os.Rename refuses a folder that exists
		return false, false
	}
	f.s.kill("ancestor taken")
	return true, false
}

// remove deletes the folder of a snapshot that is no more, whoever still reads it.
func (f *folders) remove(id string) error {
	dir, err := f.newFolder()
	if err != nil {
		return err
	}
	f.lock(id)
	err = os.Rename(f.s.folderOf(id), filepath.Join(dir, rootName))
	f.unlock(id)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = nil
	case errors.Is(err, unix.EXDEV): // as above
		err = removeTree(f.s.folderOf(id))
	}
	return errors.Join(err, removeTree(dir))
}
