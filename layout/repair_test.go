package layout_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
)

const multi = "docker.io/library/multi:1"

// patient is a store with an image and an index over two, and where they came from.
type patient struct {
	*layout.Store
	t      *testing.T
	single v1.Image
	index  v1.ImageIndex
	images []v1.Image
	origin map[string]*memory
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{Store: open(t, t.TempDir()), t: t, single: image(t, "linux/amd64", 2, 3000)}
	p.index, p.images = index(t, "linux/amd64", "linux/arm64")
	p.origin = map[string]*memory{alpine: from(t, p.single), multi: from(t, p.index)}
	put(t, p.Store, p.origin[alpine], alpine)
	put(t, p.Store, p.origin[multi], multi)
	return p
}

func (p *patient) file(h v1.Hash) string { return p.BlobPath(h) }

func (p *patient) layer(img v1.Image) string {
	p.t.Helper()
	layers, err := img.Layers()
	if err != nil {
		p.t.Fatal(err)
	}
	return p.file(digest(p.t, layers[0]))
}

func (p *patient) config(img v1.Image) string {
	p.t.Helper()
	h, err := img.ConfigName()
	if err != nil {
		p.t.Fatal(err)
	}
	return p.file(h)
}

// flipBit changes a byte in the middle, cut takes the second half away.
func flipBit(t *testing.T, file string) {
	t.Helper()
	rewrite(t, file, func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw })
}

func cut(t *testing.T, file string) {
	t.Helper()
	rewrite(t, file, func(raw []byte) []byte { return raw[:len(raw)/2] })
}

func rewrite(t *testing.T, file string, change func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, change(raw), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

var errWeather = errors.New("the network is down")

func TestRepair(t *testing.T) {
	whole := []string{alpine, multi}
	type outcome struct {
		broken int      // problems that Check finds
		names  []string // after a repair by an origin that has everything
		poor   []string // after one by an origin that has nothing
	}
	for name, c := range map[string]struct {
		damage func(p *patient)
		want   outcome
	}{
		"nothing":               {func(*patient) {}, outcome{0, whole, whole}},
		"a layer's bit":         {func(p *patient) { flipBit(t, p.layer(p.single)) }, outcome{1, whole, whole[1:]}},
		"half a layer":          {func(p *patient) { cut(t, p.layer(p.single)) }, outcome{1, whole, whole[1:]}},
		"no layer":              {func(p *patient) { remove(t, p.layer(p.single)) }, outcome{1, whole, whole[1:]}},
		"no config":             {func(p *patient) { remove(t, p.config(p.single)) }, outcome{1, whole, whole[1:]}},
		"no manifest":           {func(p *patient) { remove(t, p.file(digest(t, p.single))) }, outcome{1, whole, whole[1:]}},
		"a manifest's bit":      {func(p *patient) { flipBit(t, p.file(digest(t, p.single))) }, outcome{1, whole, whole[1:]}},
		"a platform's layer":    {func(p *patient) { flipBit(t, p.layer(p.images[1])) }, outcome{1, whole, whole}},
		"a platform's config":   {func(p *patient) { remove(t, p.config(p.images[0])) }, outcome{1, whole, whole}},
		"a platform's manifest": {func(p *patient) { cut(t, p.file(digest(t, p.images[0]))) }, outcome{1, whole, whole}},
		"one layer of each platform": {func(p *patient) {
			remove(t, p.layer(p.images[0]))
			remove(t, p.layer(p.images[1]))
		}, outcome{2, whole, whole[:1]}},
		"an index without platforms": {func(p *patient) {
			remove(t, p.file(digest(t, p.images[0])))
			remove(t, p.file(digest(t, p.images[1])))
		}, outcome{1, whole, whole[:1]}},
		"an index": {func(p *patient) { flipBit(t, p.file(digest(t, p.index))) }, outcome{1, whole, whole[:1]}},
		"half index.json": {func(p *patient) {
			rewrite(t, filepath.Join(p.Dir(), "index.json"), func(raw []byte) []byte { return raw[:3*len(raw)/4] })
		}, outcome{1, []string{alpine, "<none>"}, []string{alpine, "<none>"}}},
		"empty index.json": {func(p *patient) {
			rewrite(t, filepath.Join(p.Dir(), "index.json"), func([]byte) []byte { return nil })
		}, outcome{1, []string{"<none>", "<none>"}, []string{"<none>", "<none>"}}},
		"no index.json": {func(p *patient) { remove(t, filepath.Join(p.Dir(), "index.json")) }, outcome{1, []string{"<none>", "<none>"}, []string{"<none>", "<none>"}}},
		"an entry that is none": {func(p *patient) {
			rewrite(t, filepath.Join(p.Dir(), "index.json"), func(raw []byte) []byte {
				return []byte(strings.Replace(string(raw), `"manifests":[`, `"manifests":[{"mediaType":"x","size":3,"digest":"sha256:12"},`, 1))
			})
		}, outcome{1, whole, whole}},
		"an entry of another type": {func(p *patient) {
			rewrite(t, filepath.Join(p.Dir(), "index.json"), func(raw []byte) []byte {
				return []byte(strings.Replace(string(raw), `"manifests":[`, `"manifests":[{"size":"3","platform":{"os":{}}},`, 1))
			})
		}, outcome{1, whole, whole}},
		"garbage that is damaged": {func(p *patient) {
			if err := os.WriteFile(p.file(v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, outcome{1, whole, whole}},
	} {
		for _, rich := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				p := newPatient(t)
				c.damage(p)
				if r, err := p.Check(t.Context(), layout.CheckOptions{Deep: true}); err != nil || len(r.Broken()) != c.want.broken {
					t.Errorf("check: %v, %v; want %d", r.Broken(), err, c.want.broken)
				}
				want := c.want.names
				origin := func(_ context.Context, name string) (layout.Source, error) { return p.origin[name], nil }
				if !rich {
					want = c.want.poor
					origin = func(context.Context, string) (layout.Source, error) { return nil, fs.ErrNotExist }
				}
				kept := wholeBlobs(t, p)
				r, err := p.Repair(t.Context(), layout.RepairOptions{Origin: origin})
				if err != nil || len(r.Broken()) != 0 {
					t.Fatalf("repair: %v, %v", r, err)
				}
				if got := names(t, p.Store); !slices.Equal(got, want) {
					t.Errorf("the names are %v, want %v", got, want)
				}
				if r, err := p.Check(t.Context(), layout.CheckOptions{Deep: true}); err != nil || len(r.Broken()) != 0 {
					t.Errorf("check after the repair: %v, %v", r.Broken(), err)
				}
				checkBlobs(t, p.Store)
				for _, file := range kept {
					if _, err := os.Stat(file); err != nil && !slices.Contains(manifestsOf(p), file) {
						t.Errorf("what was whole is gone: %v", err)
					}
				}
			})
		}
	}
}

// manifestsOf are those that make a platform count as present.
func manifestsOf(p *patient) []string {
	return []string{p.file(digest(p.t, p.images[0])), p.file(digest(p.t, p.images[1]))}
}

// wholeBlobs are the files that hash to their name.
func wholeBlobs(t *testing.T, p *patient) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Dir(), "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(file string) bool {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h, _, err := v1.SHA256(f)
		return err != nil || h.Hex != filepath.Base(file)
	})
}

// As long as it can't be asked who may have it, nothing is given up.
func TestRepairInBadWeather(t *testing.T) {
	p := newPatient(t)
	flipBit(t, p.layer(p.single))
	remove(t, p.layer(p.images[1]))
	before := files(t, p.Store)
	var told []layout.MendKind
	r, err := p.Repair(t.Context(), layout.RepairOptions{
		Origin: func(context.Context, string) (layout.Source, error) { return nil, errWeather },
		Told:   func(m layout.Mended) { told = append(told, m.Kind) },
	})
	if err != nil || len(r.Broken()) != 2 || !slices.Equal(told, []layout.MendKind{layout.Unhad, layout.Unhad}) {
		t.Errorf("repair: %v, %v, told %v", r, err, told)
	}
	if after := files(t, p.Store); !slices.Equal(before, after) {
		t.Errorf("it left %v", after)
	}
	if got := names(t, p.Store); !slices.Equal(got, []string{alpine, multi}) {
		t.Errorf("the names are %v", got)
	}
}

// What an origin sends instead is not taken, and index.json's strange entries survive a repair.
func TestRepairTakesNoOtherBytes(t *testing.T) {
	p := newPatient(t)
	rewrite(t, filepath.Join(p.Dir(), "index.json"), func(raw []byte) []byte {
		var x map[string]any
		if err := json.Unmarshal(raw, &x); err != nil {
			t.Fatal(err)
		}
		x["annotations"] = map[string]string{"org.example": "kept"}
		raw, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	})
	file := p.layer(p.single)
	flipBit(t, file)
	for h := range p.origin[alpine].blobs {
		if filepath.Base(file) == h.Hex {
			p.origin[alpine].blobs[h] = slices.Clone(p.origin[alpine].blobs[h])
			p.origin[alpine].blobs[h][0] ^= 1
		}
	}
	r, err := p.Repair(t.Context(), layout.RepairOptions{
		Origin: func(_ context.Context, name string) (layout.Source, error) { return p.origin[name], nil },
	})
	if err != nil || len(r.Broken()) != 1 || r.Broken()[0].Kind != layout.Damaged {
		t.Errorf("repair: %v, %v", r, err)
	}
	raw, err := os.ReadFile(filepath.Join(p.Dir(), "index.json"))
	if err != nil || !strings.Contains(string(raw), `"org.example":"kept"`) {
		t.Errorf("index.json is %s, %v", raw, err)
	}
}
