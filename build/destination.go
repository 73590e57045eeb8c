package build

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// destination is a file that appears under its name only when the build succeeded.
type destination struct {
	path string
	file *os.File
}

// open creates the file beside its final place.
func (d *destination) open() (io.WriteCloser, error) {
	if info, err := os.Stat(d.path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("output %q: is a folder", d.path)
	}
	temp := filepath.Join(filepath.Dir(d.path), "."+filepath.Base(d.path)+"."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("output %q: %w", d.path, cause(err))
	}
	d.discard()
	d.file = f
	return f, nil
}

// keep gives the file its name.
func (d *destination) keep() error {
	if d.file == nil {
		return nil
	}
	if err := os.Rename(d.file.Name(), d.path); err != nil {
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
