package build

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

var errEnded = errors.New("the build has ended")

// destination is a file that appears under its name only when the build succeeded. A
// device or a pipe is written to as it is.
type destination struct {
	path string

	mu     sync.Mutex // a build that was interrupted may still be about to write
	ended  bool
	target string // where path leads to, if it is a link
	file   *os.File
	pipe   *os.File
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
	case err == nil && info.Mode()&os.ModeNamedPipe != 0:
		return d.openPipe()
	case err == nil && !info.Mode().IsRegular():
		return os.OpenFile(d.path, os.O_WRONLY, 0)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil, errEnded
	}
	if d.target, err = filepath.EvalSymlinks(d.path); err != nil {
		d.target = d.path
	}
	temp := filepath.Join(filepath.Dir(d.target), "."+filepath.Base(d.target)+"."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		d.remove()
		d.file = f
	}
	return f, err
}

// openPipe waits for a reader, until the build has ended.
func (d *destination) openPipe() (*os.File, error) {
	for ; ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(d.path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			err = d.adopt(f)
		}
		if !errors.Is(err, syscall.ENXIO) || d.hasEnded() {
			return f, err
		}
	}
}

// adopt has discard close a pipe.
func (d *destination) adopt(pipe *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return errors.Join(errEnded, pipe.Close())
	}
	d.pipe = pipe
	return nil
}

func (d *destination) hasEnded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended
}

// keep gives the file its name.
func (d *destination) keep() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	if err := os.Rename(d.file.Name(), d.target); err != nil {
		return fmt.Errorf("output %q: %w", d.path, err)
	}
	d.file = nil
	return nil
}

// discard removes a file that was not kept, and opens no more.
func (d *destination) discard() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.remove()
	if d.pipe != nil {
		_ = d.pipe.Close() // whoever still writes to it can go on
	}
}

func (d *destination) remove() {
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
