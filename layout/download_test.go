package layout_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

// line is a Source behind slow connections.
type line struct {
	*memory
	rate  int                                 // bytes a second and connection
	allow func(open int) error                // whether one more may be opened for a piece
	spoil func(offset int64, b []byte) []byte // what a connection brings

	half func() // called when half of the layer was sent

	mu    sync.Mutex
	open  int
	large int
	most  int
	sent  int64
}

func (l *line) OpenRange(ctx context.Context, d v1.Descriptor, offset, length int64) (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.allow != nil {
		if err := l.allow(l.large); err != nil {
			return nil, err
		}
	}
	return l.start(ctx, d, offset, length), nil
}

func (l *line) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start(ctx, d, offset, int64(len(l.blobs[d.Digest]))-offset), nil
}

func (l *line) start(ctx context.Context, d v1.Descriptor, offset, length int64) io.ReadCloser {
	l.open++
	if length > 1<<20 { // of the layer
		l.large++
	}
	l.most = max(l.most, l.large)
	content := l.blobs[d.Digest][offset : offset+length]
	if l.spoil != nil {
		content = l.spoil(offset, content)
	}
	return &connection{Reader: bytes.NewReader(content), line: l, d: d, ctx: ctx, large: length > 1<<20}
}

type connection struct {
	io.Reader
	line  *line
	d     v1.Descriptor
	large bool
	ctx   context.Context //nolint:containedctx // as a request has it
}

func (c *connection) Read(p []byte) (int, error) {
	p = p[:min(len(p), c.line.rate/100)]
	select {
	case <-time.After(10 * time.Millisecond):
	case <-c.ctx.Done():
		return 0, c.ctx.Err()
	}
	n, err := c.Reader.Read(p)
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.line.sent += int64(n)
	if c.line.half != nil && c.large && c.line.sent > int64(len(c.line.blobs[c.d.Digest]))/2 {
		c.line.half()
	}
	return n, err
}

func (c *connection) Close() error {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	c.line.open--
	if c.large {
		c.line.large--
	}
	return nil
}

// A large layer over connections that are slow each comes over many, whatever
// the other side thinks of that, and nothing comes twice.
func TestPiecesOverManyConnections(t *testing.T) {
	img := image(t, "linux/amd64", 1, 64<<20)
	layer := layerOf(t, img)
	src := from(t, img)
	refuse := errors.New("429")
	for name, test := range map[string]struct {
		allow func(open int) error
		spoil func(offset int64, b []byte) []byte
		alone bool // it comes over one connection
	}{
		"as many as we like": {},
		"one and no more":    {allow: func(int) error { return refuse }, alone: true},
		"three": {allow: func(open int) error {
			if open >= 3 {
				return refuse
			}
			return nil
		}},
		"breaks now and then": {spoil: func(offset int64, b []byte) []byte {
			if offset > 0 && len(b) > 3<<20 {
				return b[:2<<20]
			}
			return b
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &line{memory: src, rate: 16 << 20, allow: test.allow, spoil: test.spoil}
			s := open(t, t.TempDir())
			var mu sync.Mutex
			var told []int64
			begun := time.Now()
			_, err := s.Put(t.Context(), l, layout.PutOptions{Names: []string{alpine}, Progress: func(d v1.Descriptor, n int64) {
				mu.Lock()
				defer mu.Unlock()
				if d.Digest == layer.Digest {
					told = append(told, n)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 20*time.Second { // 4 s by one connection
				t.Errorf("took %v", took)
			}
			checkBlobs(t, s)
			if got, want := files(t, s), []string{"blobs", "index.json", "oci-layout"}; slices.ContainsFunc(got, func(f string) bool { return filepath.Dir(f) == ".ingest" }) {
				t.Errorf("left %v, not %v", got, want)
			}
			if told[0] != 0 || told[len(told)-1] != layer.Size || !slices.IsSorted(told) {
				t.Errorf("progress from %d to %d of %d, sorted: %v", told[0], told[len(told)-1], layer.Size, slices.IsSorted(told))
			}
			if (l.most == 1) != test.alone || l.sent > layer.Size+4<<20 || l.open != 0 {
				t.Errorf("up to %d connections, %d left, %d bytes for %d", l.most, l.open, l.sent, layer.Size)
			}
		})
	}
}

// Put was stopped in the middle, with gaps: what is there is not fetched again,
// and notes that lie cost time and nothing else.
func TestPiecesAreResumed(t *testing.T) {
	img := image(t, "linux/amd64", 1, 96<<20)
	layer := layerOf(t, img)
	src := from(t, img)
	for name, lie := range map[string]func(t *testing.T, blob, notes string){
		"the truth": func(*testing.T, string, string) {},
		"all is there": func(t *testing.T, _, notes string) {
			mustWrite(t, notes, note(0, 1<<20, 2<<20, 95<<20))
		},
		"more than all, and half a note": func(t *testing.T, _, notes string) {
			mustWrite(t, notes, append(note(-5, 7, 1<<20, 1<<62, 9, 3), 1, 2, 3))
		},
		"nothing": func(t *testing.T, _, notes string) { mustWrite(t, notes, nil) },
		"no notes": func(t *testing.T, _, notes string) {
			if err := os.Remove(notes); err != nil {
				t.Fatal(err)
			}
		},
		"other bytes": func(t *testing.T, blob, _ string) {
			f, err := os.OpenFile(blob, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("something else"), 100)
			}
			if err != nil || f.Close() != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, t.TempDir())
			ctx, cancel := context.WithCancel(t.Context())
			first := &line{memory: src, rate: 12 << 20, half: cancel}
			if _, err := s.Put(ctx, first, layout.PutOptions{}); !errors.Is(err, context.Canceled) {
				t.Fatalf("stopped: %v", err)
			}
			blob := filepath.Join(s.Dir(), ".ingest", "sha256-"+layer.Digest.Hex)
			lie(t, blob, blob+".parts")
			second := &line{memory: src, rate: 100 << 20}
			var begins int64 = -1
			_, err := s.Put(t.Context(), second, layout.PutOptions{Names: []string{alpine}, Progress: func(d v1.Descriptor, n int64) {
				if d.Digest == layer.Digest && begins < 0 {
					begins = n
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			check(t, s)
			if name != "the truth" {
				return
			}
			// Each connection may have been cut off between reading and writing.
			missing, slack := layer.Size-first.sent, int64(2<<20)
			if first.most < 2 || first.sent < 16<<20 || second.sent > missing+slack || begins < first.sent-slack {
				t.Errorf("%d of %d bytes by %d connections, then from %d on %d", first.sent, layer.Size, first.most, begins, second.sent)
			}
		})
	}
}

// note is a file of parts.
func note(numbers ...int64) []byte {
	var raw []byte
	for _, n := range numbers {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(n))
	}
	return raw
}

func mustWrite(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
