package layout

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Bounds that keep something small from becoming something large.
const (
	maxValues  = 400_000 // values in one JSON document: an index of maxBlobs has half as many
	maxEntry   = 8 << 10 // bytes of a descriptor that becomes an entry of our index.json
	maxNames   = 10_000  // names of one image
	maxImages  = 10_000  // images of one archive
	maxRatio   = 1100    // what gzip can do at its best, and other compression has no good reason for
	freeOutput = 1 << 30 // bytes that may be compressed better than that
)

// parseJSON is json.Unmarshal for what others wrote: "{}," takes three bytes in a
// text, and a hundred times as many once it is read into a struct.
func parseJSON(raw []byte, v any) error {
	if n := countValues(raw); n > maxValues {
		return fmt.Errorf("%d values in it, which is more than %d", n, maxValues)
	}
	return json.Unmarshal(raw, v)
}

// countValues counts what begins a value: brackets and commas out of strings.
func countValues(raw []byte) (n int) {
	inString := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == '{' || c == '['):
			n++
		}
	}
	return n
}

// expansion refuses compression that is too good to be true.
type expansion struct {
	out io.Reader
	in  *measured
	n   int64 // bytes that came out
}

// Read implements [io.Reader].
func (e *expansion) Read(p []byte) (int, error) {
	n, err := e.out.Read(p)
	if e.n += int64(n); e.n > freeOutput && e.n/maxRatio > e.in.n.Load() {
		return 0, invalid("archive", "it unpacks to more than %d times its size", maxRatio)
	}
	return n, err
}

// measured counts what was read; zstd does that in a goroutine of its own.
type measured struct {
	r io.Reader
	n atomic.Int64
}

// Read implements [io.Reader].
func (m *measured) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// bounded is read for as many bytes as the manifests of one image may have.
func bounded(read reader) reader {
	left := int64(maxDocuments)
	return func(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
		if left -= d.Size; left < 0 {
			return nil, invalid("blob "+d.Digest.String(), "more than %d bytes of configs below one image", maxDocuments)
		}
		return read(ctx, d, limit)
	}
}
