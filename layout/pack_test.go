package layout_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

// Compressed archives are the same whatever the number of cores, from version to
// version, and what other tools call gzip and zstd.
func TestSaveCompresses(t *testing.T) {
	s := open(t, t.TempDir())
	var text bytes.Buffer // of several blocks and frames, that compress somewhat
	for r := rand.New(rand.NewPCG(1, 2)); text.Len() < 9<<20; {
		fmt.Fprintln(&text, r.Uint32(), "is followed by")
	}
	put(t, s, from(t, fixed(t, "linux/amd64", text.String())), alpine)
	img := find(t, s, "alpine:3.20")
	plain := save(t, s, "alpine:3.20")
	for _, c := range []struct {
		how    layout.Compression
		tool   string
		golden string
	}{
		{layout.Gzip, "gzip", "51fd5477657e594bebe48fc47c18eef29869619938a889bfde65fb09cb91bbf0"},
		{layout.Zstd, "zstd", "08162391fb3300b94d922c4272abed0b3cfbcb2c71e8f62a7a7af2928b3f9fcc"},
	} {
		for _, cores := range []int{1, 2, 7} {
			was := runtime.GOMAXPROCS(cores)
			var out bytes.Buffer
			err := s.Save(t.Context(), &out, []*layout.Image{img}, layout.SaveOptions{Compression: c.how})
			runtime.GOMAXPROCS(was)
			if err != nil {
				t.Fatal(err)
			}
			if h, _, err := v1.SHA256(bytes.NewReader(out.Bytes())); err != nil || h.Hex != c.golden {
				t.Errorf("%s on %d cores: %s, was %s, %v", c.how, cores, h.Hex, c.golden, err)
			}
			if cores > 1 {
				continue
			}
			if out.Len() > len(plain)*2/3 {
				t.Errorf("%s made %d bytes of %d", c.how, out.Len(), len(plain))
			}
			if again := load(t, open(t, t.TempDir()), out.Bytes()); len(again) != 1 || again[0].Descriptor().Digest != img.Descriptor().Digest {
				t.Errorf("%s: loaded %v", c.how, again)
			}
			if unpacked := unpackBy(t, c.tool, out.Bytes()); unpacked != nil && !bytes.Equal(unpacked, plain) {
				t.Errorf("%s unpacks %d bytes, want %d", c.tool, len(unpacked), len(plain))
			}
		}
		if err := s.Save(t.Context(), &full{room: 1 << 20}, []*layout.Image{img}, layout.SaveOptions{Compression: c.how}); err == nil {
			t.Errorf("%s into a writer that fails: no error", c.how)
		}
	}
	if err := s.Save(t.Context(), &bytes.Buffer{}, []*layout.Image{img}, layout.SaveOptions{Compression: "lzma"}); err == nil {
		t.Error("an unknown compression is no error")
	}
}

// unpackBy is what another tool makes of packed, nil where there is none.
func unpackBy(t *testing.T, tool string, packed []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		return nil
	}
	file := filepath.Join(t.TempDir(), "packed")
	if err := os.WriteFile(file, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(t.Context(), tool, "-dc")
	cmd.Stdin = in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	return out
}
