package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// replacer takes tags away where a registry deletes manifests only: it has the tag
// name a manifest of its own, and deletes that.
type replacer struct {
	session *session

	mu     sync.Mutex
	config *v1.Descriptor // of those manifests, once it is there
	proven atomic.Bool    // a tag was gone afterwards
}

// untag takes a tag away. Where the registry does not delete its new manifest
// after all, the tag is what it was.
func (r *replacer) untag(ctx context.Context, tag string) error {
	config, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	was, desc, err := r.session.manifest(ctx, tag, nil)
	if err != nil {
		return notFoundIsFine(err)
	}
	// An image without layers, which no other tag names.
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.DockerManifestSchema2, "config": config, "layers": []v1.Descriptor{},
		"annotations": map[string]string{"wherry.deleted": tag + "@" + desc.Digest.String()},
	})
	if err != nil {
		return err
	}
	digest, err := hashOf("sha256", raw)
	if err != nil {
		return err
	}
	if err := r.session.putManifest(ctx, tag, types.DockerManifestSchema2, raw); err != nil {
		return err
	}
	resp, err := r.session.remove(ctx, digest.String())
	if err == nil {
		err = r.session.deleted(resp)
	}
	if err == nil {
		err = r.prove(ctx, tag)
	}
	if err != nil {
		_ = r.session.putManifest(context.WithoutCancel(ctx), tag, desc.MediaType, was) // the first error counts
	}
	return err
}

// prove that the first tag went with its manifest: not every registry sees to that.
func (r *replacer) prove(ctx context.Context, tag string) error {
	if r.proven.Load() {
		return nil
	}
	if _, err := r.session.stat(ctx, tag); err == nil {
		return &NoDeleteError{Host: r.session.to.account(), Message: "tag " + tag + " outlives what it names"}
	}
	r.proven.Store(true)
	return nil
}

// prepare learns whether the registry deletes anything, before anything is
// changed, and puts the config there that it wants to have.
func (r *replacer) prepare(ctx context.Context) (*v1.Descriptor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config != nil {
		return r.config, nil
	}
	nothing := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	resp, err := r.session.remove(ctx, nothing.String())
	if err != nil {
		return nil, err
	}
	if err := r.session.deleted(resp); err != nil {
		return nil, err
	}
	raw := []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)
	digest, err := hashOf("sha256", raw)
	if err != nil {
		return nil, err
	}
	if err := r.session.putBlob(ctx, digest, raw); err != nil {
		return nil, err
	}
	r.config = &v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(raw)), Digest: digest}
	return r.config, nil
}

// putBlob sends a small blob in one request.
func (s *session) putBlob(ctx context.Context, digest v1.Hash, content []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.to.url(s.repo+"/blobs/uploads/").String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return s.fault(err)
	}
	at, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if resp.StatusCode != http.StatusAccepted || err != nil {
		return s.refused(resp)
	}
	discard(resp)
	q := at.Query()
	q.Set("digest", digest.String())
	at.RawQuery = q.Encode()
	return s.put(ctx, at.String(), "application/octet-stream", content)
}

// putManifest stores a manifest under a tag or digest.
func (s *session) putManifest(ctx context.Context, id string, mediaType types.MediaType, raw []byte) error {
	return s.put(ctx, s.to.url(s.repo+"/manifests/"+id).String(), string(mediaType), raw)
}

func (s *session) put(ctx context.Context, address, mediaType string, content []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, address, bytes.NewReader(content))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := s.client().Do(req)
	if err != nil {
		return s.fault(err)
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return s.refused(resp)
	}
	discard(resp)
	return nil
}
