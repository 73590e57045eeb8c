package layout_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
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
		first, second := pack(t, archive[:half]), pack(t, archive[half:])
		packed := slices.Concat(first, second) // two members
		s := open(t, t.TempDir())
		load(t, s, packed)
		check(t, s)
		bad := map[string][]byte{"with a flipped bit": flip(packed, len(packed)/3)}
		for n := range 12 {
			bad["with garbage of "+itoa(int64(n+1))] = append(slices.Clone(packed), "such garbage"[:n+1]...)
			if n > 0 {
				bad["cut short by "+itoa(int64(n))] = packed[:len(packed)-n]
			}
		}
		for n := range checkedTail[kind] { // the checksum of each member, and what stands around it
			bad["without the first checksum, byte -"+itoa(int64(n))] = flip(packed, len(first)-2-n)
			bad["without the last checksum, byte -"+itoa(int64(n))] = flip(packed, len(packed)-2-n)
		}
		for what, bad := range bad {
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
}

// checkedTail is how many bytes before a member's last one cannot change unseen.
var checkedTail = map[string]int{"gzip": 7, "zstd": 3, "xz": 20, "bzip2": 8}

// No block and no frame, be it the first or a later one, may ask for more memory.
func TestLoadBoundsWhatCompressionAsksFor(t *testing.T) {
	archive := archiveOf(t, file{name: "x"})
	good := packers()["xz"](t, archive)
	for size, refused := range map[byte]bool{30: false, 31: true, 40: true} {
		packed := slices.Clone(good)
		at := bytes.Index(packed[12:], []byte{0x21, 1}) + 12 + 2 // LZMA2's one property: the dictionary's size
		packed[at] = size
		header := packed[12 : 12+4*(int(packed[12])+1)]
		end := len(header) - 4
		binary.LittleEndian.PutUint32(header[end:], crc32.ChecksumIEEE(header[:end]))
		for what, stream := range map[string][]byte{"first": packed, "second": slices.Concat(good, packed)} {
			_, err := open(t, t.TempDir()).Load(t.Context(), bytes.NewReader(stream), layout.LoadOptions{})
			if err == nil || strings.Contains(err.Error(), "dictionary size exceeds") != refused {
				t.Errorf("a dictionary of size %d in the %s stream: %v", size, what, err)
			}
		}
	}
	good = packers()["zstd"](t, archive)
	for descriptor, refused := range map[byte]bool{17 << 3: false, 18 << 3: true, 31 << 3: true} { // 2^(10+n) bytes
		wide := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, descriptor, 1, 0, 0} // one empty raw block
		for what, stream := range map[string][]byte{"first": slices.Concat(wide, good), "second": slices.Concat(good, wide)} {
			_, err := open(t, t.TempDir()).Load(t.Context(), bytes.NewReader(stream), layout.LoadOptions{})
			if err == nil || strings.Contains(err.Error(), "window size exceeded") != refused {
				t.Errorf("a window of 2^%d bytes in the %s frame: %v", 10+descriptor>>3, what, err)
			}
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
	list := map[string]func(testing.TB, []byte) []byte{
		"gzip": through(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd": through(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":   through(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
	}
	if _, err := exec.LookPath("bzip2"); err == nil { // Go has no writer
		list["bzip2"] = func(t testing.TB, raw []byte) []byte {
			cmd := exec.CommandContext(t.Context(), "bzip2")
			cmd.Stdin = bytes.NewReader(raw)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			return packed
		}
	}
	return list
}
