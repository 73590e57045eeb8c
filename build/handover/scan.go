//go:build linux

package handover

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// scan describes the folder at root. Entries come as a walk meets them: each folder's in the order of their names,
// and what is in a folder right after it.
func scan(root string, notes *notes) ([]entry, error) {
	s := &scanner{root: root, notes: notes, others: make(chan struct{}, runtime.GOMAXPROCS(0)-1)}
	return s.folder("", nil)
}

// scanner walks on all cores: as long as one is free, the next subfolder is another goroutine's.
type scanner struct {
	root   string
	notes  *notes
	others chan struct{} // a place for each goroutine besides the first
}

// folder appends what is in a folder.
func (s *scanner) folder(path string, list []entry) ([]entry, error) {
	names, stats, err := readFolder(filepath.Join(s.root, path))
	if err != nil {
		return nil, err
	}
	parts := make([]part, 1, 8)
	parts[0].list = list
	var others sync.WaitGroup
	for i, name := range names {
		last := &parts[len(parts)-1]
		if path != "" {
			name = path + "/" + name
		}
		e := entryOf(name, &stats[i])
		isDir := e.isDir()
		if err := s.notes.read(filepath.Join(s.root, name), &e); err != nil {
			others.Wait()
			return nil, err
		}
		last.list = append(last.list, e)
		if !isDir || last.err != nil {
			continue
		}
		select {
		case s.others <- struct{}{}:
			parts = append(parts, part{sub: new(part)}, part{})
			sub := parts[len(parts)-2].sub
			others.Go(func() {
				sub.list, sub.err = s.folder(name, nil)
				<-s.others
			})
		default:
			last.list, last.err = s.folder(name, last.list)
		}
	}
	others.Wait()
	return joined(parts)
}

// part is a piece of a folder's entries, or what a goroutine makes of a subfolder.
type part struct {
	list []entry
	err  error
	sub  *part
}

func joined(parts []part) ([]entry, error) {
	all := parts[0].list
	errs := parts[0].err
	for _, p := range parts[1:] {
		if p.sub != nil {
			p = *p.sub
		}
		all, errs = append(all, p.list...), errors.Join(errs, p.err)
	}
	return all, errs
}

// readFolder returns the names in a folder, in their order, and what they stand for.
func readFolder(path string) ([]string, []unix.Stat_t, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = d.Close() }() // only read
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	stats := make([]unix.Stat_t, len(names))
	for i, name := range names {
		if err := unix.Fstatat(int(d.Fd()), name, &stats[i], unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, nil, &os.PathError{Op: "lstat", Path: filepath.Join(path, name), Err: err}
		}
	}
	return names, stats, nil
}
