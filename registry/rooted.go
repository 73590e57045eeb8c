package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/time/rate"
)

// Rooted is src with another root: what a manifest below it, or beside it, stands
// for. The bytes of the root are raw, or src's own if raw is nil.
func Rooted(src Source, root v1.Descriptor, raw []byte) Source {
	return &rooted{passing{src}, root, raw}
}

type rooted struct {
	passing
	root v1.Descriptor
	raw  []byte
}

// Descriptor implements [Source].
func (r *rooted) Descriptor() v1.Descriptor { return r.root }

// Open implements [Source].
func (r *rooted) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if r.raw == nil || d.Digest != r.root.Digest {
		return r.Source.Open(ctx, d, offset)
	}
	if offset < 0 || offset > int64(len(r.raw)) {
		return nil, fmt.Errorf("cannot read %s from byte %d: it has %d", d.Digest, offset, len(r.raw))
	}
	return io.NopCloser(bytes.NewReader(r.raw[offset:])), nil
}

// passing is a Source that knows the origins of another one.
type passing struct{ Source }

// Origins implements [Origins].
func (p passing) Origins(d v1.Descriptor) []reference.Named {
	if o, ok := p.Source.(Origins); ok {
		return o.Origins(d)
	}
	return nil
}

// Limited is src, read at most as fast as l has it: a token is a byte, and l's
// burst has to be [LimitedBurst] at least.
func Limited(src Source, l *rate.Limiter) Source { return &limited{passing{src}, l} }

// LimitedBurst is how much of a [Limited] source is read at once, in bytes.
const LimitedBurst = 32 << 10

type limited struct {
	passing
	limiter *rate.Limiter
}

// Open implements [Source].
func (l *limited) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := l.Source.Open(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	return &limitedReader{ReadCloser: r, wait: func(n int) error { return l.limiter.WaitN(ctx, n) }}, nil
}

type limitedReader struct {
	io.ReadCloser
	wait func(n int) error
}

// Read implements [io.Reader].
func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), LimitedBurst)])
	if n > 0 {
		if err := r.wait(n); err != nil {
			return 0, err
		}
	}
	return n, err
}

// sourceHost is the registry that src reads from, "" for anything else.
func sourceHost(src Source) string {
	for {
		switch s := src.(type) {
		case *rooted:
			src = s.Source
		case *limited:
			src = s.Source
		case *Image:
			return reference.Domain(s.ref)
		default:
			return ""
		}
	}
}
