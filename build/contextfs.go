package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/tonistiigi/fsutil"
)

// UnreadableError is a file of the build context that can't be read.
type UnreadableError struct {
	Path string // in the context
	Err  error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("build context: read %q: %v", e.Path, cause(e.Err))
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// readable makes a file that can't be read the end of the build. BuildKit sends an
// empty file in place of one that it can't open, and waits for ever after a failed
// read: so the whole build is told, and not only the transfer.
type readable struct {
	fsutil.FS
	fail func(error)
}

func (r readable) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	return r.FS.Walk(ctx, target, func(path string, entry fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // names that may be missing are looked for, too
			r.fail(&UnreadableError{path, err})
		}
		return fn(path, entry, err)
	})
}

func (r readable) Open(path string) (io.ReadCloser, error) {
	f, err := r.FS.Open(path)
	if err != nil {
		r.fail(&UnreadableError{path, err})
		return nil, err
	}
	return &watchedFile{f, path, r.fail}, nil
}

type watchedFile struct {
	io.ReadCloser
	path string
	fail func(error)
}

func (f *watchedFile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.fail(&UnreadableError{f.path, err})
	}
	return n, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cause strips the operation and the path, which the caller names in its own words.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
