package layout

import (
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// Compression is what [Store.Save] puts around an archive. It uses all cores, and
// its bytes depend on the content alone, not on their number.
type Compression string

// What an archive can be compressed with.
const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip" // level 6, gzip's own default, in blocks of 1 MiB
	Zstd         Compression = "zstd" // level 3, zstd's own default, in frames of 2 MiB
)

const (
	gzipLevel = 6
	zstdFrame = 2 << 20
	maxPacked = 8 // blocks or frames that are compressed at a time, however many cores there are
)

// around returns a writer that compresses into w, and has to be closed.
func (c Compression) around(w io.Writer) (io.WriteCloser, error) {
	side := min(runtime.GOMAXPROCS(0), maxPacked)
	switch c {
	case Gzip:
		z, err := pgzip.NewWriterLevel(w, gzipLevel)
		if err != nil {
			return nil, err
		}
		return z, z.SetConcurrency(gzipBlock, side)
	case Zstd:
		return newZstdWriter(w, side)
	default:
		return nil, fmt.Errorf("no compression %q", string(c))
	}
}

// zstdWriter compresses frame after frame, some at a time. Whoever reads takes
// them for one stream (RFC 8878, 3.1). The library's own concurrency is within
// one frame, where little can be won.
type zstdWriter struct {
	w       io.Writer
	encoder *zstd.Encoder
	side    int
	filling *frame
	pending []*frame // on their way, in order
	spare   []*frame
}

// frame is some input and what becomes of it.
type frame struct {
	in, out []byte
	done    chan struct{}
}

func newZstdWriter(w io.Writer, side int) (*zstdWriter, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(side), zstd.WithWindowSize(zstdFrame))
	z := &zstdWriter{w: w, encoder: e, side: side}
	if err == nil {
		z.filling = z.empty()
	}
	return z, err
}

// empty is a frame to fill.
func (z *zstdWriter) empty() *frame {
	if n := len(z.spare); n > 0 {
		f := z.spare[n-1]
		z.spare = z.spare[:n-1]
		return f
	}
	return &frame{in: make([]byte, 0, zstdFrame), out: make([]byte, 0, z.encoder.MaxEncodedSize(zstdFrame))}
}

func (z *zstdWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), zstdFrame-len(z.filling.in))
		z.filling.in = append(z.filling.in, p[:n]...)
		p = p[n:]
		if len(z.filling.in) == zstdFrame {
			if err := z.begin(); err != nil {
				return written, err
			}
		}
		written += n
	}
	return written, nil
}

// begin has the frame that was filled compressed, once fewer than side are.
func (z *zstdWriter) begin() error {
	if len(z.pending) == z.side {
		if err := z.next(); err != nil {
			return err
		}
	}
	f := z.filling
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		f.out = z.encoder.EncodeAll(f.in, f.out[:0])
	}()
	z.pending = append(z.pending, f)
	z.filling = z.empty()
	return nil
}

// next writes the frame that was begun first.
func (z *zstdWriter) next() error {
	f := z.pending[0]
	z.pending = z.pending[1:]
	<-f.done
	_, err := z.w.Write(f.out)
	f.in = f.in[:0]
	z.spare = append(z.spare, f)
	return err
}

// Close writes what is left. It doesn't close the writer below.
func (z *zstdWriter) Close() error {
	if len(z.filling.in) > 0 {
		if err := z.begin(); err != nil {
			return err
		}
	}
	for len(z.pending) > 0 {
		if err := z.next(); err != nil {
			return err
		}
	}
	return z.encoder.Close()
}
