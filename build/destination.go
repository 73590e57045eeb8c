package build

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// destination is a file that appears under its name only when the build succeeded. A
// device or a pipe is written to as it is.
type destination struct {
	path   string
	target string // where path leads to, if it is a link
	file   *os.File
}

// open creates the file beside its final place.
func (d *destination) open() (io.WriteCloser, error) {
	f, err := d.create()
	if err != nil {
		return nil, fmt.Errorf("output %q: %w", d.path, cause(err))
	}
	return f, nil
}

func (d *destination) create() (*os.File, error) {
	info, err := os.Stat(d.path)
	switch {
	case err == nil && info.IsDir():
		return nil, errors.New("is a folder")
	case err == nil && !info.Mode().IsRegular():
		return os.OpenFile(d.path, os.O_WRONLY, 0)
	}
	if d.target, err = filepath.EvalSymlinks(d.path); err != nil {
		d.target = d.path
	}
	temp := filepath.Join(filepath.Dir(d.target), "."+filepath.Base(d.target)+"."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		d.discard()
		d.file = f
	}
	return f, err
}

// keep gives the file its name.
func (d *destination) keep() error {
	if d.file == nil {
		return nil
	}
	if err := os.Rename(d.file.Name(), d.target); err != nil {
		return fmt.Errorf("output %q: %w", d.path, err)
	}
	d.file = nil
	return nil
}

// discard removes a file that was not kept.
func (d *destination) discard() {
	if d.file == nil {
		return
	}
	_ = d.file.Close()           // closed already unless the build failed
	_ = os.Remove(d.file.Name()) // a leftover at worst, and it was to be thrown away
	d.file = nil
}

// unclosed keeps BuildKit from closing a writer that is the caller's.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
