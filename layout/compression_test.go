package layout_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/wherry-oci/wherry/layout"
)

func TestLoadUnpacksWhatIsAround(t *testing.T) {
	archive := dockerArchive(t, map[string]v1.Image{"alpine:3.20": image(t, "linux/amd64", 1, 100)})
	for kind, pack := range packers() {
		half := len(archive) / 2
		packed := slices.Concat(pack(t, archive[:half]), pack(t, archive[half:])) // two members
		s := open(t, t.TempDir())
		load(t, s, packed)
		check(t, s)
		for what, bad := range map[string][]byte{
			"cut short":          packed[:len(packed)-9],
			"with a flipped bit": flip(packed, len(packed)/3),
			"with garbage":       append(slices.Clone(packed), "garbage"...),
		} {
			s := open(t, t.TempDir())
			before := files(t, s)
			if _, err := s.Load(t.Context(), bytes.NewReader(bad), layout.LoadOptions{}); err == nil {
				t.Errorf("%s %s was loaded", kind, what)
			}
			if after := files(t, s); !slices.Equal(before, after) {
				t.Errorf("%s %s left %v", kind, what, after)
			}
		}
	}
	if _, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.CommandContext(t.Context(), "bzip2")
		cmd.Stdin = bytes.NewReader(archive)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		load(t, open(t, t.TempDir()), packed)
	}
}

func TestLoadBoundsWhatCompressionAsksFor(t *testing.T) {
	packed := packers()["xz"](t, archiveOf(t, file{name: "x"}))
	at := bytes.Index(packed[12:], []byte{0x21, 1}) + 12 + 2 // LZMA2's one property: the dictionary's size
	for size, refused := range map[byte]bool{30: false, 31: true, 40: true, 255: true} {
		packed[at] = size
		_, err := open(t, t.TempDir()).Load(t.Context(), bytes.NewReader(packed), layout.LoadOptions{})
		if err == nil || strings.Contains(err.Error(), "dictionary is too large") != refused {
			t.Errorf("a dictionary of size %d: %v", size, err)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 0x10
	return b
}

func packers() map[string]func(testing.TB, []byte) []byte {
	through := func(open func(io.Writer) (io.WriteCloser, error)) func(testing.TB, []byte) []byte {
		return func(t testing.TB, raw []byte) []byte {
			var b bytes.Buffer
			w, err := open(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(raw); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
	}
	return map[string]func(testing.TB, []byte) []byte{
		"gzip": through(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd": through(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":   through(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
	}
}
