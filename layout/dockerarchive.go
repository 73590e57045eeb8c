package layout

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const dockerManifestFile = "manifest.json"

// dockerItem is one image in the manifest.json of docker's archives (v1.10 and
// later; moby's image/tarexport).
type dockerItem struct {
	Config   string   // path of the config
	RepoTags []string // familiar names, or null
	Layers   []string // paths, lowest first
}

func parseDockerManifest(raw []byte) ([]dockerItem, error) {
	var items []dockerItem
	if err := parseJSON(raw, &items); err != nil {
		return nil, &InvalidError{What: "archive", Reason: "its manifest.json is none of docker's", Err: err}
	}
	for _, it := range items {
		if it.Config == "" || len(it.Layers) > maxBlobs {
			return nil, invalid("archive", "its manifest.json is none of docker's")
		}
	}
	return items, nil
}

// dockerImages makes a manifest for each image of a manifest.json.
func (a *archive) dockerImages(raw []byte) ([]*loaded, error) {
	items, err := parseDockerManifest(raw)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, invalid("archive", "its manifest.json names no image")
	}
	var found []*loaded
	byDigest := map[v1.Hash]*loaded{}
	for _, it := range items {
		config, err := a.file(it.Config)
		if err != nil {
			return nil, err
		}
		layers := make([]*item, len(it.Layers))
		for n, name := range it.Layers {
			if layers[n], err = a.file(name); err != nil {
				return nil, err
			}
		}
		l, err := a.assemble(config, layers)
		if err != nil {
			return nil, err
		}
		if same := byDigest[l.desc.Digest]; same != nil {
			l = same
		} else {
			byDigest[l.desc.Digest] = l
			found = append(found, l)
		}
		for _, tag := range it.RepoTags {
			if err := l.addName(tag); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// assemble makes the manifest of a config and its layers. It depends on nothing
// else, so the same archive always gives the same digest.
func (a *archive) assemble(config *item, layers []*item) (*loaded, error) {
	d := config.descriptor()
	d.MediaType = types.OCIConfigJSON
	if config.raw == nil {
		return nil, invalid("config "+d.Digest.String(), "not an image config")
	}
	var err error
	if config.config == nil {
		if config.config, err = parseConfig(d, config.raw); err != nil {
			return nil, err
		}
	}
	c := config.config
	if len(c.RootFS.DiffIDs) != len(layers) {
		return nil, invalid("config "+d.Digest.String(), "%d layers, but the archive lists %d", len(c.RootFS.DiffIDs), len(layers))
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: d, Layers: []v1.Descriptor{}}
	for n, layer := range layers {
		ld, err := layer.asLayer(c.RootFS.DiffIDs[n])
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, ld)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return a.made(raw, types.OCIManifestSchema1)
}

// asLayer describes a layer. The diffID of one that is not compressed is its digest.
func (i *item) asLayer(diffID v1.Hash) (v1.Descriptor, error) {
	d := i.descriptor()
	t, ok := i.packing.layerType()
	if !ok {
		return d, invalid("layer "+d.Digest.String(), "compressed in a way that no image may have")
	}
	if i.packing == plain && d.Digest.Algorithm == diffID.Algorithm && d.Digest != diffID {
		return d, &DigestError{Digest: diffID, Size: d.Size, Got: d.Digest, Bytes: d.Size}
	}
	d.MediaType = t
	return d, nil
}

// made adds a document that the archive didn't have.
func (a *archive) made(raw []byte, t types.MediaType) (*loaded, error) {
	h, err := v1.Hasher("sha256")
	if err != nil {
		return nil, err
	}
	h.Write(raw)
	i := &item{digest: sum("sha256", h), size: int64(len(raw)), raw: raw}
	if a.blobs[i.digest] == nil && !a.roomFor(i.size) {
		return nil, invalid("archive", "its images would need more than %d bytes of manifests and configs", maxArchived)
	}
	if err := a.add(fmt.Sprintf("%s/sha256/%s", blobsDir, i.digest.Hex), i); err != nil {
		return nil, err
	}
	return &loaded{desc: v1.Descriptor{MediaType: t, Size: i.size, Digest: i.digest}}, nil
}
