package layout

import (
	"archive/tar"
	"cmp"
	"context"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

const (
	largeMember = 1 << 20 // bytes from which on a file is read beside others
	maxReaders  = 16      // files that are read at a time, however many cores there are
)

// input is an archive, not compressed, that can be read anywhere at any time.
type input struct {
	at    io.ReaderAt
	file  *os.File // the same, if it is a file
	start int64    // where in it the archive begins
	size  int64    // bytes from there to its end
}

// randomAccess is nil for what can only be read from front to end.
func randomAccess(r io.Reader) *input {
	s, ok := r.(interface {
		io.ReaderAt
		io.Seeker
	})
	file, isFile := r.(*os.File)
	if !ok || isFile && !isRegular(file) {
		return nil
	}
	start, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	end, err := s.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	if _, err := s.Seek(start, io.SeekStart); err != nil {
		return nil
	}
	head := make([]byte, sniffLen)
	n, _ := s.ReadAt(head, start) // what can't be read is found out when it must be
	if sniff(head[:n]) != plain {
		return nil
	}
	return &input{at: s, file: file, start: start, size: end - start}
}

// member is a large file of an archive.
type member struct {
	name         string
	offset, size int64
	item         *item
}

// readAnywhere reads all headers and small files, and then the large files side
// by side.
func (a *archive) readAnywhere(ctx context.Context, in *input) error {
	stream := &seekingCounter{countingReader{ctx: ctx, r: in.section(0, in.size)}}
	var members []*member
	err := a.readTar(stream, func(h *tar.Header, r io.Reader) error {
		offset, err := stream.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		name, err := cleanName(h.Name)
		if err == nil && name != "." && h.Typeflag == tar.TypeReg && h.Size >= largeMember && !isSparse(h) {
			members = append(members, &member{name: name, offset: offset, size: h.Size})
			return nil
		}
		return a.entry(ctx, h, r)
	})
	if err != nil {
		return stream.cause(err)
	}
	if err := a.readMembers(ctx, in, members); err != nil {
		return err
	}
	for _, m := range members {
		if err := a.add(m.name, m.item); err != nil {
			return err
		}
	}
	return nil
}

func (in *input) section(offset, size int64) *io.SectionReader {
	return io.NewSectionReader(in.at, in.start+offset, size)
}

// isSparse reports whether a file has holes that the archive doesn't have:
// where its content lies, only archive/tar knows.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// readMembers begins with the largest, so that no core is left alone with it.
func (a *archive) readMembers(ctx context.Context, in *input, members []*member) error {
	held := newLease(in.file)
	defer held.release()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), maxReaders))
	bySize := slices.SortedStableFunc(slices.Values(members), func(x, y *member) int { return cmp.Compare(y.size, x.size) })
	for _, m := range bySize {
		g.Go(func() (err error) {
			source := &countingReader{ctx: ctx, r: in.section(m.offset, m.size)}
			c := content{Reader: source, file: in.file, at: in.start + m.offset, lease: held}
			m.item, err = a.read(ctx, m.name, m.size, c)
			return source.cause(err)
		})
	}
	return g.Wait()
}

// seekingCounter is a countingReader of something that seeks.
type seekingCounter struct{ countingReader }

// Seek implements [io.Seeker].
func (s *seekingCounter) Seek(offset int64, whence int) (int64, error) {
	return s.r.(io.Seeker).Seek(offset, whence)
}
