package registry

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// manifestType of raw, which a registry announced as contentType. The document's
// own word counts, as the digest covers it; one that could be read both as a
// manifest and as an index is refused, as the image specification demands
// (CVE-2021-41190).
func manifestType(raw []byte, contentType string) (types.MediaType, error) {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", errors.New("it is not valid JSON")
	}
	header, _, _ := mime.ParseMediaType(contentType)
	announced := types.MediaType(header)
	isIndex, isImage := m.Manifests != nil, m.Config != nil || m.Layers != nil
	switch {
	case m.SchemaVersion == 1 || m.FSLayers != nil || announced.IsSchema1():
		return "", errors.New("it is in docker's schema 1 format of 2015, which is not supported; push the image again with a current tool")
	case isIndex && isImage:
		return "", errors.New("it could be read both as a manifest and as an index")
	}
	mediaType := m.MediaType
	if mediaType == "" {
		mediaType = announced
	}
	switch {
	case mediaType.IsIndex() && !isImage, mediaType.IsImage() && !isIndex:
		return mediaType, nil
	case m.MediaType == "" && isIndex:
		return types.OCIImageIndex, nil
	case m.MediaType == "" && isImage:
		return types.OCIManifestSchema1, nil
	}
	return "", fmt.Errorf("media type %q is not one of an image or index", bounded(string(mediaType)))
}

// isManifest reports whether registries keep d among the manifests, not the blobs.
func isManifest(t types.MediaType) bool {
	return t.IsIndex() || t.IsImage() || t.IsSchema1() ||
		strings.Contains(string(t), ".manifest.") || strings.Contains(string(t), ".index.")
}

func hashOf(algorithm string, raw []byte) (v1.Hash, error) {
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	h.Write(raw) // a hash never fails to write
	return v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(h.Sum(nil))}, nil
}
