//go:build linux

package engine

import (
	"context"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"
	"github.com/moby/buildkit/util/compression"
)

// The bytes of a gzip layer depend on the block size, the level and the library's
// version, never on the number of cores or on timing. A golden digest in the
// tests notices a change.
const (
	gzipBlock  = 1 << 20 // bytes of input each core compresses at once
	gzipBlocks = 8       // blocks in flight
)

// parallelGzip is BuildKit's gzip with a deflater that uses all cores.
type parallelGzip struct{ compression.Type }

// Compress returns a compressor at the configured level, by default gzip's own.
func (parallelGzip) Compress(_ context.Context, c compression.Config) (compression.Compressor, compression.Finalizer) {
	return func(dest io.Writer, _ string) (io.WriteCloser, error) {
		level := gzip.DefaultCompression
		if c.Level != nil {
			level = *c.Level
		}
		z, err := pgzip.NewWriterLevel(dest, level)
		if err != nil {
			return nil, err
		}
		return z, z.SetConcurrency(gzipBlock, gzipBlocks)
	}, nil
}

// inParallel replaces BuildKit's gzip, which is the standard library's on one core.
func inParallel(c compression.Config) compression.Config {
	if c.Type == compression.Gzip {
		c.Type = parallelGzip{compression.Gzip}
	}
	return c
}
