package layout_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/wherry-oci/wherry/layout"
)

// What any archive may cost, however large it claims to be: on a machine with two
// cores most of them take less than a second.
const (
	bombTime   = 40 * time.Second
	bombMemory = 700 << 20
)

// bombArchive, set in the environment of this very test program, has it load one
// archive into a store and end.
const bombArchive, bombStore = "WHERRY_TEST_BOMB", "WHERRY_TEST_BOMB_STORE"

// TestBombs loads archives that are small and cost a lot. Each has to be refused,
// or to be loaded, within the bounds on time and memory, and what is refused
// leaves nothing.
func TestBombs(t *testing.T) {
	if file := os.Getenv(bombArchive); file != "" { //nolint:forbidigo // this is a program now
		loadBomb(t, file, os.Getenv(bombStore)) //nolint:forbidigo // as above
		return
	}
	all := bombs()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		bomb := all[name]
		t.Run(name, func(t *testing.T) {
			file, dir := filepath.Join(t.TempDir(), "bomb"), t.TempDir()
			writeBomb(t, file, bomb.write)
			s := open(t, dir)
			before := files(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), 2*bombTime)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBombs$")
			cmd.Env = append(os.Environ(), bombArchive+"="+file, bombStore+"="+dir)
			begun := time.Now()
			out, err := cmd.CombinedOutput()
			took := time.Since(begun)
			first, _, _ := strings.Cut(string(out), "\n")
			var peak int64
			_, _ = fmt.Sscanf(first, "%d KiB", &peak)
			t.Logf("%v, %.300s", took.Round(time.Millisecond), first)
			if took > bombTime || peak<<10 > bombMemory {
				t.Errorf("%v, %d KiB", took, peak)
			}
			if loaded := strings.Contains(first, " loaded"); loaded != bomb.good || !loaded && !strings.Contains(first, " refused: ") || err != nil {
				t.Errorf("%v: %.2000s", err, out)
			}
			if !bomb.good && !slices.Equal(before, files(t, s)) {
				t.Errorf("left %v", files(t, s))
			}
		})
	}
}

func loadBomb(t *testing.T, file, dir string) {
	limitFiles(t)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images, err := open(t, dir).Load(t.Context(), f, layout.LoadOptions{})
	said := fmt.Sprintf("%d KiB: loaded %d images\n", peak(), len(images))
	if err != nil {
		said = fmt.Sprintf("%d KiB: refused: %v\n", peak(), err)
	}
	if _, err := os.Stderr.WriteString(said); err != nil { //nolint:forbidigo // the parent reads it
		t.Fatal(err)
	}
}

// peak is the most memory that this process had, in KiB; 0 where that isn't known.
func peak() (kib int64) {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	_, _ = fmt.Sscan(after, &kib)
	return kib
}

func writeBomb(t *testing.T, file string, write func(io.Writer) error) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

type bomb struct {
	good  bool // it may be loaded
	write func(io.Writer) error
}

func bombs() map[string]bomb {
	const hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	entry := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` + hash + `"}`
	docker := func(manifest, config string) func(io.Writer) error {
		return tarred(file{name: "manifest.json", body: manifest}, file{name: "c", body: config})
	}
	return map[string]bomb{
		"100 GB of zeros as a layer":         {write: zeros(header("layer.tar", tar.TypeReg, "100000000000"))},
		"100 GB of zeros as JSON":            {write: zeros(header("index.json", tar.TypeReg, "100000000000"))},
		"100 GB of zeros after the end":      {write: zeros(make([]byte, 1024))},
		"1 TB of holes, PAX":                 {write: sparsePAX(1 << 40)},
		"1 TB of holes, GNU":                 {write: sparseGNU(1 << 40)},
		"a million files":                    {write: zipped(manyFiles(1_000_000, 0, "x"))},
		"190,000 tiny files":                 {write: zipped(manyFiles(190_000, 0, "x"))},
		"190,000 empty files":                {write: zipped(manyFiles(190_000, 0, ""))},
		"60,000 long names":                  {write: zipped(manyFiles(60_000, 3900, ""))},
		"a name of 900 KB":                   {write: tarred(file{name: strings.Repeat("n", 900_000), body: "x"})},
		"an index of nothings":               {write: tarred(file{name: "index.json", body: `{"manifests":[` + repeat("{}", 16<<20) + `]}`})},
		"an index of one thing":              {write: tarred(file{name: "index.json", body: `{"manifests":[` + repeat(entry, 16<<20) + `]}`})},
		"a manifest.json of nothings":        {write: docker("["+repeat("{}", 16<<20)+"]", "{}")},
		"a manifest.json of layers":          {write: docker(`[{"Config":"c","Layers":[`+repeat(`"c"`, 16<<20)+`]}]`, "{}")},
		"a config of nothings":               {write: docker(`[{"Config":"c","Layers":[]}]`, `{"history":[`+repeat("{}", 16<<20)+`]}`)},
		"a config of labels":                 {write: docker(`[{"Config":"c","Layers":[]}]`, `{"config":{"Labels":{`+numbered(1_000_000, `"%d":""`)+`}}}`)},
		"repositories of nothings":           {write: tarred(file{name: "repositories", body: `{"a":{` + numbered(1_000_000, `"%d":"a"`) + `}}`})},
		"one config many times":              {write: docker("["+repeat(`{"Config":"c","Layers":[]}`, 4<<20)+"]", `{"os":"`+strings.Repeat("o", 15<<20)+`"}`)},
		"an image of 200,000 names":          {write: docker(`[{"Config":"c","RepoTags":[`+numbered(200_000, `"n:%d"`)+`],"Layers":[]}]`, "{}")},
		"an image of 5,000 names":            {good: true, write: docker(`[{"Config":"c","RepoTags":[`+numbered(5_000, `"n:%d"`)+`],"Layers":[]}]`, "{}")},
		"an entry of 10 MB":                  {write: ociBomb(`"platform":{"os":"` + strings.Repeat("o", 10<<20) + `","architecture":"x"}`)},
		"an index of 40 MB":                  {write: tarred(file{name: "index.json", body: strings.Repeat(" ", 40<<20) + `{}`})},
		"a digest of 10 MB":                  {write: tarred(file{name: "index.json", body: `{"manifests":[{"digest":"` + strings.Repeat("d", 10<<20) + `"}]}`})},
		"5,000 indexes over one":             {write: zipped(sharedIndex(5_000))},
		"one large config under 5,000":       {good: true, write: zipped(sharedConfig(5_000))},
		"6,000 old images of 200 layers":     {write: zipped(legacyTops(6_000, 200))},
		"indexes within indexes":             {write: nestedIndexes(100)},
		"10,001 images":                      {write: zipped(manyImages(10_001))},
		"500 images":                         {good: true, write: zipped(manyImages(500))},
		"a PAX header of a million records":  {write: paxBomb()},
		"a descriptor with a megabyte of it": {good: true, write: ociBomb(`"data":"` + strings.Repeat("A", 1<<20) + `"`)},
	}
}

func repeat(s string, size int) string {
	return strings.TrimSuffix(strings.Repeat(s+",", (size-1024)/(len(s)+1)), ",")
}

func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func tarred(list ...file) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, f := range list {
			if err := writeMember(tw, f.name, f.body); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

func writeMember(tw *tar.Writer, name, body string) error {
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(tw, body)
	return err
}

func zipped(write func(io.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		b := bufio.NewWriterSize(z, 1<<20)
		return errors.Join(write(b), b.Flush(), z.Close())
	}
}

// header is a header in the old form, which archive/tar's writer is too careful for.
func header(name string, kind byte, octalOrDecimal string) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	var size int64
	_, _ = fmt.Sscan(octalOrDecimal, &size)
	if size < 1<<33 {
		copy(h[124:136], fmt.Sprintf("%011o\x00", size))
	} else {
		h[124] = 0x80
		for i := range 8 {
			h[135-i] = byte(size >> (8 * i))
		}
	}
	copy(h[136:148], "00000000000\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	seal(h)
	return h
}

func seal(h []byte) { copy(h[148:156], fmt.Sprintf("%06o\x00 ", checksum(h))) }

// zeros is a gigabyte of zeros a hundred times behind head, in three megabytes.
func zeros(head []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		frame := func(r io.Reader) ([]byte, error) {
			var b bytes.Buffer
			z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
			if err != nil {
				return nil, err
			}
			_, err = io.Copy(z, r)
			err = errors.Join(err, z.Close())
			return b.Bytes(), err
		}
		first, err1 := frame(bytes.NewReader(head))
		one, err2 := frame(io.LimitReader(zeroReader{}, 1<<30))
		_, err3 := w.Write(append(first, bytes.Repeat(one, 100)...))
		return errors.Join(err1, err2, err3)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func sparsePAX(size int64) func(io.Writer) error {
	return func(w io.Writer) error {
		var records string
		for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=layer.tar", fmt.Sprint("GNU.sparse.realsize=", size)} {
			n := len(r) + 2 // and the digits of the length, of which there are two
			records += fmt.Sprintf("%d %s\n", n+2, r)
		}
		block := make([]byte, 512)
		copy(block, records)
		var b bytes.Buffer
		b.Write(header("pax", 'x', fmt.Sprint(len(records))))
		b.Write(block)
		b.Write(header("layer.tar", tar.TypeReg, "512"))
		sparse := make([]byte, 512)
		copy(sparse, "1\n"+fmt.Sprint(size)+"\n0\n")
		b.Write(sparse)
		b.Write(make([]byte, 1024))
		_, err := w.Write(b.Bytes())
		return err
	}
}

func sparseGNU(size int64) func(io.Writer) error {
	return func(w io.Writer) error {
		h := header("layer.tar", tar.TypeGNUSparse, "0")
		copy(h[257:], "ustar  \x00")
		clear(h[345:])
		number := func(at int, n int64) {
			h[at] = 0x80
			for i := range 8 {
				h[at+11-i] = byte(n >> (8 * i))
			}
		}
		number(386, size) // one fragment of nothing at the end
		number(398, 0)
		number(483, size)
		seal(h)
		_, err := w.Write(append(h, make([]byte, 1024)...))
		return err
	}
}

func manyFiles(n, nameLength int, body string) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for i := range n {
			if err := writeMember(tw, fmt.Sprintf("%d-%s", i, strings.Repeat("n", nameLength)), body); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

func blobOf(raw string) (f file, descriptor string) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(raw)))
	return file{name: "blobs/sha256/" + sum, body: raw}, fmt.Sprintf(`"size":%d,"digest":"sha256:%s"`, len(raw), sum)
}

const (
	indexType    = `"mediaType":"application/vnd.oci.image.index.v1+json",`
	manifestType = `"mediaType":"application/vnd.oci.image.manifest.v1+json",`
	configType   = `"mediaType":"application/vnd.oci.image.config.v1+json",`
)

// ociBomb is one good image whose entry in index.json has something more.
func ociBomb(more string) func(io.Writer) error {
	config, cd := blobOf(`{"os":"linux","architecture":"amd64"}`)
	manifest, md := blobOf(`{"schemaVersion":2,` + manifestType + `"config":{` + configType + cd + `},"layers":[]}`)
	return tarred(config, manifest, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[{` + manifestType + md + "," + more + `}]}`})
}

// manyImages are n images with a name each.
func manyImages(n int) func(io.Writer) error {
	config, cd := blobOf(`{"os":"linux","architecture":"amd64"}`)
	list := []file{config}
	var entries []string
	for i := range n {
		f, d := blobOf(fmt.Sprintf(`{"schemaVersion":2,%s"annotations":{"n":"%d"},"config":{%s%s},"layers":[]}`, manifestType, i, configType, cd))
		list = append(list, f)
		entries = append(entries, fmt.Sprintf(`{%s%s,"annotations":{"io.containerd.image.name":"docker.io/library/n:%d"}}`, manifestType, d, i))
	}
	return tarred(append(list, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`})...)
}

// sharedIndex has n indexes in index.json, each over one of four megabytes.
func sharedIndex(n int) func(io.Writer) error {
	config, cd := blobOf(`{"os":"linux","architecture":"amd64"}`)
	manifest, md := blobOf(`{"schemaVersion":2,` + manifestType + `"config":{` + configType + cd + `},"layers":[]}`)
	gone := strings.Repeat(`{`+manifestType+`"size":3,"digest":"sha256:`+strings.Repeat("0", 64)+`"},`, 19_000)
	large, ld := blobOf(`{"schemaVersion":2,` + indexType + `"manifests":[` + gone + `{` + manifestType + md + `}]}`)
	list := []file{config, manifest, large}
	var entries []string
	for i := range n {
		f, d := blobOf(fmt.Sprintf(`{"schemaVersion":2,%s"annotations":{"n":"%d"},"manifests":[{%s%s}]}`, indexType, i, indexType, ld))
		list, entries = append(list, f), append(entries, "{"+indexType+d+"}")
	}
	return tarred(append(list, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`})...)
}

// sharedConfig is an index of n images without a platform, all with one config of
// many megabytes.
func sharedConfig(n int) func(io.Writer) error {
	config, cd := blobOf(`{"os":"linux","architecture":"amd64","author":"` + strings.Repeat("a", 15<<20) + `"}`)
	list := []file{config}
	var entries []string
	for i := range n {
		f, d := blobOf(fmt.Sprintf(`{"schemaVersion":2,%s"annotations":{"n":"%d"},"config":{%s%s},"layers":[]}`, manifestType, i, configType, cd))
		list, entries = append(list, f), append(entries, "{"+manifestType+d+"}")
	}
	index, d := blobOf(`{"schemaVersion":2,` + indexType + `"manifests":[` + strings.Join(entries, ",") + `]}`)
	list = append(list, index, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[{` + indexType + d + `}]}`})
	return tarred(list...)
}

// legacyTops are n images of docker's oldest format on one stack of layers.
func legacyTops(n, depth int) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		parent := "base"
		layer := func(id string) error {
			if err := writeMember(tw, id+"/json", fmt.Sprintf(`{"id":%q,"parent":%q}`, id, parent)); err != nil {
				return err
			}
			return tw.WriteHeader(&tar.Header{Name: id + "/layer.tar", Typeflag: tar.TypeLink, Linkname: "base/layer.tar", Mode: 0o644})
		}
		if err := errors.Join(writeMember(tw, "base/json", `{"id":"base"}`), writeMember(tw, "base/layer.tar", "layer")); err != nil {
			return err
		}
		for i := range depth {
			id := fmt.Sprintf("l%d", i)
			if err := layer(id); err != nil {
				return err
			}
			parent = id
		}
		for i := range n {
			if err := layer(fmt.Sprintf("t%d", i)); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

func nestedIndexes(depth int) func(io.Writer) error {
	f, d := blobOf(`{"schemaVersion":2,` + indexType + `"manifests":[]}`)
	list := []file{f}
	for range depth {
		f, d = blobOf(`{"schemaVersion":2,` + indexType + `"manifests":[{` + indexType + d + `}]}`)
		list = append(list, f)
	}
	return tarred(append(list, file{name: "index.json", body: `{"schemaVersion":2,"manifests":[{` + indexType + d + `}]}`})...)
}

func paxBomb() func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for i := range 20 {
			records := map[string]string{}
			for k := range 60_000 {
				records[fmt.Sprintf("W.%d", k)] = "x"
			}
			h := &tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: records}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}
