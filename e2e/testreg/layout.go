package testreg

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ServeLayout is a registry that has what an OCI image layout has, in every
// repository and under the tags that stand in index.json's ref.name. It only
// reads, keeps nothing in memory, knows ranges, and has the kernel copy blobs.
func ServeLayout(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, blob, isBlob := strings.Cut(req.URL.Path, "/blobs/")
		_, manifest, isManifest := strings.Cut(req.URL.Path, "/manifests/")
		switch {
		case req.URL.Path == "/v2/":
		case isBlob:
			serveBlob(w, req, dir, v1.Descriptor{MediaType: "application/octet-stream"}, blob)
		case isManifest:
			d, err := lookUp(dir, manifest)
			if err != nil {
				http.NotFound(w, req)
				return
			}
			serveBlob(w, req, dir, d, d.Digest.String())
		default:
			http.NotFound(w, req)
		}
	})
}

// lookUp finds a tag or the digest of a manifest in index.json.
func lookUp(dir, ref string) (v1.Descriptor, error) {
	var index v1.IndexManifest
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	for _, d := range index.Manifests {
		if d.Digest.String() == ref || d.Annotations["org.opencontainers.image.ref.name"] == ref {
			return d, err
		}
	}
	if err == nil {
		err = os.ErrNotExist
	}
	return v1.Descriptor{}, err
}

func serveBlob(w http.ResponseWriter, req *http.Request, dir string, d v1.Descriptor, digest string) {
	h, err := v1.NewHash(digest)
	if err != nil {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", string(d.MediaType))
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeFile(w, req, filepath.Join(dir, "blobs", h.Algorithm, h.Hex))
}
