package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tonistiigi/fsutil"
)

// NoDockerfileError says that there is nothing to build from.
type NoDockerfileError struct {
	Path string
}

func (e *NoDockerfileError) Error() string { return fmt.Sprintf("no Dockerfile at %q", e.Path) }

// sources are the folders a build reads.
type sources struct {
	context    string // absolute
	dockerfile string // absolute folder of the Dockerfile
	filename   string // its name in that folder
}

// locate checks what the request names before anything is started.
func locate(r Request) (sources, error) {
	var s sources
	var err error
	if s.context, err = filepath.Abs(r.Context); err != nil {
		return s, err
	}
	info, err := os.Stat(s.context)
	if err != nil {
		return s, fmt.Errorf("build context %q: %w", r.Context, cause(err))
	}
	if !info.IsDir() {
		return s, fmt.Errorf("build context %q: not a folder", r.Context)
	}
	path := r.Dockerfile
	if path == "" {
		path = filepath.Join(r.Context, "Dockerfile")
		if _, err := os.Stat(path); err != nil { // as docker does
			if lower := filepath.Join(r.Context, "dockerfile"); exists(lower) {
				path = lower
			}
		}
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return s, &NoDockerfileError{Path: path}
	}
	if path, err = filepath.Abs(path); err != nil {
		return s, err
	}
	s.dockerfile, s.filename = filepath.Split(path)
	return s, nil
}

// sharedKey tells BuildKit which earlier transfers these folders continue. Without
// it all projects share one synced folder, and a file is taken for that of another
// project with the same name, size and time.
func (s sources) sharedKey() string { return s.context + "\x00" + s.dockerfile }

// mounts are the folders by the names that the frontend knows. fail is told of a file
// that can't be read.
func (s sources) mounts(fail func(error)) (map[string]fsutil.FS, error) {
	files, err := fsutil.NewFS(s.context)
	if err != nil {
		return nil, err
	}
	dockerfile, err := fsutil.NewFS(s.dockerfile)
	if err != nil {
		return nil, err
	}
	return map[string]fsutil.FS{"context": readable{files, fail}, "dockerfile": readable{dockerfile, fail}}, nil
}

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
