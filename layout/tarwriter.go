package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	cloneAlign = 4096     // what file systems that share blocks want offsets to be multiples of
	alignFrom  = 64 << 10 // bytes from which on a file is worth it
)

// tarWriter writes a tar archive that depends on nothing but its content. Unlike
// archive/tar's it hands whole files to the file below, if there is one: their
// blocks are shared where the file system can, else the kernel copies. The first
// error sticks.
type tarWriter struct {
	w     io.Writer
	ends  func() error // writes what compression still holds back
	file  *os.File     // w, if it is a regular file
	start int64        // where in file the archive begins
	n     int64        // bytes written
	begun int64        // of these, bytes whose way to the disk was begun
	buf   []byte
	err   error
}

func newTarWriter(w io.Writer, c Compression) (*tarWriter, error) {
	t := &tarWriter{w: w, ends: func() error { return nil }}
	if c != Uncompressed {
		packer, err := c.around(w)
		if err != nil {
			return nil, err
		}
		t.w, t.ends = packer, packer.Close
		return t, nil
	}
	if f, ok := w.(*os.File); ok && isRegular(f) {
		if at, err := f.Seek(0, io.SeekCurrent); err == nil {
			t.file, t.start = f, at
		}
	}
	return t, nil
}

func isRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// header writes the header of one entry. The content of a large file begins at a
// multiple of cloneAlign: a comment of the right length is put in front. (pax,
// POSIX.1: "all characters in the value field shall be ignored".)
func (t *tarWriter) header(name string, kind byte, size int64) {
	h := &tar.Header{Name: name, Typeflag: kind, Size: size, Mode: 0o644}
	if kind == tar.TypeDir {
		h.Name, h.Mode = name+"/", 0o755
	}
	b := t.encode(h)
	for blocks := 1; size >= alignFrom && (t.n+int64(len(b)))%cloneAlign != 0 && t.err == nil; blocks++ {
		const besides = 100 // more bytes than the other records take, fewer than a block
		h.PAXRecords = map[string]string{"comment": strings.Repeat(" ", blocks*tarBlockSize-besides)}
		b = t.encode(h)
	}
	t.write(b)
}

func (t *tarWriter) encode(h *tar.Header) []byte {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil && t.err == nil {
		t.err = err
	}
	return b.Bytes()
}

func (t *tarWriter) write(b []byte) {
	if t.err != nil {
		return
	}
	n, err := t.w.Write(b)
	t.n += int64(n)
	if err != nil {
		t.err = &WriteError{err}
	}
}

// content writes blob d, which f holds.
func (t *tarWriter) content(ctx context.Context, f *os.File, d v1.Descriptor, p Progress) {
	report(p, d, 0)
	left := d.Size - t.share(f, d.Size)
	for left > 0 && t.err == nil {
		if t.err = ctx.Err(); t.err != nil {
			return
		}
		n := min(left, writebackStep)
		t.copy(f, n)
		t.writeback()
		left -= n
		report(p, d, d.Size-left)
	}
	t.pad(d.Size)
}

// share has the archive share as many of f's first n bytes as it can, and moves
// both files' positions behind them.
func (t *tarWriter) share(f *os.File, n int64) int64 {
	at := t.start + t.n
	whole := n - n%cloneAlign
	if t.err != nil || t.file == nil || n < alignFrom || at%cloneAlign != 0 || cloneRange(t.file, at, f, 0, whole) != nil {
		return 0
	}
	t.n += whole
	t.begun = t.n
	if _, err := t.file.Seek(at+whole, io.SeekStart); err != nil {
		t.err = &WriteError{err}
	} else if _, err := f.Seek(whole, io.SeekStart); err != nil {
		t.err = err
	}
	return whole
}

// copy brings n bytes from f's position on into the archive.
func (t *tarWriter) copy(f *os.File, n int64) {
	if t.file != nil {
		copied, _ := copyInKernel(t.file, f, n) // what goes wrong goes wrong once more below
		t.n += copied
		n -= copied
	}
	if t.buf == nil {
		t.buf = make([]byte, bufferSize)
	}
	for n > 0 && t.err == nil {
		got, err := io.ReadFull(f, t.buf[:min(n, bufferSize)])
		t.write(t.buf[:got])
		n -= int64(got)
		if err == io.EOF { // it has become shorter
			err = io.ErrUnexpectedEOF
		}
		if t.err == nil {
			t.err = err
		}
	}
}

// writeback has the disk begin with what was written.
func (t *tarWriter) writeback() {
	if t.file != nil {
		t.begun = writeback(t.file, t.start+t.begun, t.start+t.n) - t.start
	}
}

func (t *tarWriter) pad(size int64) { t.write(make([]byte, -size&(tarBlockSize-1))) }

func (t *tarWriter) dir(name string) { t.header(name, tar.TypeDir, 0) }

func (t *tarWriter) small(name string, content []byte) {
	t.header(name, tar.TypeReg, int64(len(content)))
	t.write(content)
	t.pad(int64(len(content)))
}

// close writes the end of the archive, two blocks of nothing, and returns the
// first error there was.
func (t *tarWriter) close() error {
	t.write(make([]byte, 2*tarBlockSize))
	if err := t.ends(); err != nil && t.err == nil { // also after an error: it has goroutines
		t.err = &WriteError{err}
	}
	return t.err
}
