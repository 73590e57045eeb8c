package e2e

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-oci/wherry/e2e/base"
)

// oddIndex is an index whose entries say what they want, and its children.
type oddIndex struct {
	raw    []byte
	images map[v1.Hash]v1.Image
	below  map[v1.Hash]v1.ImageIndex
}

// newOddIndex makes an index of these entries:
//
//	PLATFORM           an image for it
//	ENTRY=CONFIG       what the index says, and what the image's config does; "-" is
//	                   nothing, "{}" an empty platform
//	( ... )            an index in the index
//	@                  an attestation of the image before
//
// Platforms are ggcr's: "windows/amd64:10.0.20348.1" has a version.
func newOddIndex(ts *testscript.TestScript, entries []string) *oddIndex {
	x := &oddIndex{images: map[v1.Hash]v1.Image{}, below: map[v1.Hash]v1.ImageIndex{}}
	var list []v1.Descriptor
	for i := 0; i < len(entries); i++ {
		switch entries[i] {
		case "(":
			end := closing(ts, entries, i)
			inner := newOddIndex(ts, entries[i+1:end])
			list, i = append(list, x.index(ts, inner)), end
		case "@":
			list = append(list, x.attestation(ts, list[len(list)-1], int64(i)))
		default:
			list = append(list, x.image(ts, entries[i], int64(i)))
		}
	}
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": list})
	ts.Check(err)
	x.raw = []byte(strings.ReplaceAll(string(raw), `"platform":{"architecture":"","os":""}`, `"platform":{}`))
	return x
}

func closing(ts *testscript.TestScript, entries []string, from int) int {
	for i, depth := from, 0; i < len(entries); i++ {
		switch entries[i] {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	ts.Fatalf("a ( without )")
	return 0
}

func (x *oddIndex) index(ts *testscript.TestScript, inner *oddIndex) v1.Descriptor {
	d, err := partial.Descriptor(inner)
	ts.Check(err)
	x.below[d.Digest] = inner
	return *d
}

func (x *oddIndex) image(ts *testscript.TestScript, entry string, seed int64) v1.Descriptor {
	said, config, differ := strings.Cut(entry, "=")
	if !differ {
		config = said
	}
	img, err := base.Random(seed, 1, 100, oddPlatform(ts, config))
	ts.Check(err)
	d := x.add(ts, img)
	if said != "-" {
		p := oddPlatform(ts, said)
		d.Platform = &p
	}
	return d
}

// add describes an image by nothing but its bytes.
func (x *oddIndex) add(ts *testscript.TestScript, img v1.Image) v1.Descriptor {
	d, err := partial.Descriptor(img)
	ts.Check(err)
	x.images[d.Digest] = img
	return v1.Descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest}
}

func (x *oddIndex) attestation(ts *testscript.TestScript, of v1.Descriptor, seed int64) v1.Descriptor {
	img, err := base.Random(1000+seed, 1, 50, v1.Platform{})
	ts.Check(err)
	d := x.add(ts, img)
	d.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = map[string]string{
		"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.Digest.String(),
	}
	return d
}

func oddPlatform(ts *testscript.TestScript, text string) v1.Platform {
	if text == "-" || text == "{}" || text == "" {
		return v1.Platform{}
	}
	p, err := v1.ParsePlatform(text)
	ts.Check(err)
	return *p
}

// MediaType implements [v1.ImageIndex].
func (x *oddIndex) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }

// Digest implements [v1.ImageIndex].
func (x *oddIndex) Digest() (v1.Hash, error) { return partial.Digest(x) }

// Size implements [v1.ImageIndex].
func (x *oddIndex) Size() (int64, error) { return partial.Size(x) }

// RawManifest implements [v1.ImageIndex].
func (x *oddIndex) RawManifest() ([]byte, error) { return x.raw, nil }

// IndexManifest implements [v1.ImageIndex].
func (x *oddIndex) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(strings.NewReader(string(x.raw)))
}

// Image implements [v1.ImageIndex].
func (x *oddIndex) Image(h v1.Hash) (v1.Image, error) {
	if img, ok := x.images[h]; ok {
		return img, nil
	}
	return nil, fmt.Errorf("no image %s", h)
}

// ImageIndex implements [v1.ImageIndex].
func (x *oddIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	if index, ok := x.below[h]; ok {
		return index, nil
	}
	return nil, fmt.Errorf("no index %s", h)
}
