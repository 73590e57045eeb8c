package main

import (
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
	f, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*")
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			e.Path = name // what was asked for, not the temporary name
		}
		return err
	}
	if err = fill(f, write); err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// fill writes, syncs and closes f.
func fill(f *os.File, write func(io.Writer) error) (err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return err
	}
	return f.Sync()
}

func writeThrough(name string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
