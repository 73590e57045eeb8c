package layout

import (
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Source is where the manifests and blobs of one image (or index) are read from.
//
// A Source may also have a method Path(d v1.Descriptor) (string, bool): an
// immutable file, already verified, that holds exactly this blob. [Store.Put]
// then links that file instead of reading from Open.
//
// And it may have a method OpenRange(ctx, d, offset, length), which reads length
// bytes of layer d from offset on over one more connection, and fails at once
// where that can't be had. [Store.Put] then fetches a large layer in pieces, if
// one connection is slow; whatever fails so is read from Open.
type Source interface {
	// Descriptor of the manifest or index the source stands for.
	Descriptor() v1.Descriptor
	// Open reads manifest, config or layer d from offset on. The reader may end
	// early or lie: who reads verifies.
	Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error)
}

// pather is an optional part of a Source.
type pather interface {
	Path(d v1.Descriptor) (string, bool)
}

// rangeOpener is another one.
type rangeOpener interface {
	OpenRange(ctx context.Context, d v1.Descriptor, offset, length int64) (io.ReadCloser, error)
}

// Progress is told how much of blob d is there. The first call for a blob says
// how it begins: with written == d.Size it was there already, with 0 it is moved
// from the start, with anything between a broken transfer is resumed. The last
// call of a blob that was moved has written == d.Size. It must be safe for
// concurrent calls, though those for one blob come one after another, each with
// more than the last. It may be nil.
type Progress = func(d v1.Descriptor, written int64)

func report(p Progress, d v1.Descriptor, written int64) {
	if p != nil {
		p(d, written)
	}
}
