//go:build linux

package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/moby/buildkit/util/compression"
)

// goldenGzip is the digest of the compressed sample: when a library's update changes
// it, the same Dockerfile gives other digests than before, and that has to be said.
const goldenGzip = "121d240e51a06943c9f392c65b0fad488beda66ec74a0b9ee060fd056a1f39c9"

func sample() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 5<<20+123)
	for i := range data {
		data[i] = byte(r.IntN(16))
	}
	return data
}

func compressed(t *testing.T, data []byte, piece int) []byte {
	t.Helper()
	var out bytes.Buffer
	compress, _ := inParallel(compression.New(compression.Gzip)).Type.Compress(context.Background(), compression.New(compression.Gzip))
	w, err := compress(&out, "")
	if err != nil {
		t.Fatal(err)
	}
	for rest := data; len(rest) > 0; {
		n := min(piece, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestGzipBytesDependOnTheInputAlone(t *testing.T) {
	data := sample()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, cores := range []int{1, 4} {
		runtime.GOMAXPROCS(cores)
		for _, piece := range []int{1 << 10, 3 << 20} {
			got := fmt.Sprintf("%x", sha256.Sum256(compressed(t, data, piece)))
			if got != goldenGzip {
				t.Errorf("%d cores, writes of %d bytes: digest %s, want %s", cores, piece, got, goldenGzip)
			}
		}
	}
	r, err := gzip.NewReader(bytes.NewReader(compressed(t, data, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, data) {
		t.Errorf("what was compressed does not come back: %d bytes, %v", len(back), err)
	}
}
