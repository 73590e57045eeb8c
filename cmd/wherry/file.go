package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// writeFile has write fill the file name, which changes only once all of it is
// on the disk. What is not a regular file (a pipe, /dev/stdout) is written to as
// it is.
func writeFile(name string, write func(io.Writer) error) error {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%q is a folder", name)
	case err == nil && !info.Mode().IsRegular():
		return writeThrough(name, write)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	target, err := filepath.EvalSymlinks(name) // a link stays a link
	if err != nil {
		target = name
	}
	d, err := newDraft(target)
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			e.Path = name // what was asked for, not the temporary name
		}
		return err
	}
	return d.fill(write)
}

// draft is a file that gets its name once it is whole.
type draft struct {
	file   *os.File
	target string
	name   string // the temporary one; "" while it has none
}

// newDraft begins a file beside target. Where the system can, it has no name:
// whatever happens to this process, nothing is left of it.
func newDraft(target string) (*draft, error) {
	dir := filepath.Dir(target)
	if f, err := openUnnamed(dir); err == nil {
		return &draft{file: f, target: target}, nil
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(target)+".*")
	if err != nil {
		return nil, err
	}
	return &draft{file: f, target: target, name: f.Name()}, nil
}

// fill has write fill the draft, and replaces target with it.
func (d *draft) fill(write func(io.Writer) error) (err error) {
	defer func() {
		err = errors.Join(err, d.file.Close())
		if err != nil && d.name != "" {
			err = errors.Join(err, os.Remove(d.name))
		}
	}()
	if err := write(d.file); err != nil {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	if d.name == "" {
		name := filepath.Join(filepath.Dir(d.target), fmt.Sprintf(".%s.%s", filepath.Base(d.target), rand.Text()))
		if err := nameFile(d.file, name); err != nil {
			return err
		}
		d.name = name
	}
	return os.Rename(d.name, d.target)
}

func writeThrough(name string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
