package layout

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
)

// span is the bytes of a blob from start up to end.
type span struct{ start, end int64 }

// partSize is a span in a file of parts: two little-endian numbers. It divides
// the size of a page, so that no kill can leave half of one.
const partSize = 16

// maxParts bounds what is read of such a file: a blob as large as may be in the
// smallest pieces there are.
const maxParts = maxBlobSize / minPiece

// parts notes in a file beside an unfinished blob which of its bytes are there,
// once they don't come in order any more. A part is noted after its bytes were
// written, so a process that is killed loses what it was just writing and no
// more. After a power failure the notes may lie; the digest finds out.
//
// Without the file all bytes of the unfinished blob are there.
type parts struct {
	file *os.File
	n    int64
}

// readParts returns the spans that are noted in a file, in order and disjoint,
// within the first size bytes. It is nil where there is no such file.
func readParts(name string, size int64) ([]span, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxParts*partSize))
	if err != nil {
		return nil, err
	}
	found := []span{}
	for ; len(raw) >= partSize; raw = raw[partSize:] {
		found = append(found, span{int64(binary.LittleEndian.Uint64(raw)), int64(binary.LittleEndian.Uint64(raw[8:]))})
	}
	return tidy(found, size), nil
}

// tidy sorts and joins spans, and drops what is no part of size bytes.
func tidy(spans []span, size int64) []span {
	spans = slices.DeleteFunc(spans, func(s span) bool { return s.start < 0 || s.start >= min(s.end, size) })
	slices.SortFunc(spans, func(a, b span) int { return int(min(max(a.start-b.start, -1), 1)) })
	tidied := spans[:0]
	for _, s := range spans {
		s.end = min(s.end, size)
		if last := len(tidied) - 1; last >= 0 && s.start <= tidied[last].end {
			tidied[last].end = max(tidied[last].end, s.end)
			continue
		}
		tidied = append(tidied, s)
	}
	return tidied
}

// newParts begins a file of parts that replaces the one of that name whole. It is
// closed for that: not all systems rename open files.
func newParts(name string, there []span) (*parts, error) {
	var raw []byte
	for _, s := range there {
		raw = append(raw, s.note()...)
	}
	if err := os.WriteFile(name+".new", raw, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	return &parts{file: f, n: int64(len(there))}, err
}

// note is how a span stands in the file.
func (s span) note() []byte {
	raw := binary.LittleEndian.AppendUint64(nil, uint64(s.start))
	return binary.LittleEndian.AppendUint64(raw, uint64(s.end))
}

// add notes one more span, and returns the place to change it at.
func (p *parts) add(s span) (at int64, err error) {
	at = p.n
	p.n++
	return at, p.set(at, s)
}

// set notes how far the span at a place has grown.
func (p *parts) set(at int64, s span) error {
	_, err := p.file.WriteAt(s.note(), at*partSize)
	return err
}

func (p *parts) close() error { return p.file.Close() }
