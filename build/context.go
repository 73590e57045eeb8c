package build

import (
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

// mounts are the folders by the names that the frontend knows.
func (s sources) mounts() (map[string]fsutil.FS, error) {
	context, err := fsutil.NewFS(s.context)
	if err != nil {
		return nil, err
	}
	dockerfile, err := fsutil.NewFS(s.dockerfile)
	if err != nil {
		return nil, err
	}
	return map[string]fsutil.FS{"context": readable{context}, "dockerfile": readable{dockerfile}}, nil
}

// readable makes a file that can't be opened an error of the build. BuildKit sends
// an empty file in its place.
type readable struct{ fsutil.FS }

func (r readable) Open(path string) (io.ReadCloser, error) {
	f, err := r.FS.Open(path)
	if err != nil {
		return io.NopCloser(failing{fmt.Errorf("build context: read %q: %w", path, cause(err))}), nil
	}
	return f, nil
}

// failing is a reader that has an error to tell instead of bytes.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cause strips the operation and the path, which the caller names in its own words.
func cause(err error) error {
	if pe, ok := err.(*fs.PathError); ok { //nolint:errorlint // only the outermost one repeats what the caller says
		return pe.Err
	}
	return err
}
