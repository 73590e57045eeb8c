package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// maxManifest bounds a manifest that a registry sends, in bytes, as registries
// themselves do.
const maxManifest = 4 << 20

// listSource is what an index needs to be pushed: some of it is at hand, the rest
// in the repositories that its manifests come from.
type listSource struct {
	registry.Source // the index, and what is at hand
	client          *registry.Client

	mu    sync.Mutex
	from  map[v1.Hash]reference.Named // the repository of each manifest and blob
	repos map[string]*registry.Image
}

func newListSource(atHand registry.Source, client *registry.Client) *listSource {
	return &listSource{Source: atHand, client: client, from: map[v1.Hash]reference.Named{}, repos: map[string]*registry.Image{}}
}

// draftSource is the listSource of a draft: its own blobs are in the store.
func draftSource(d *layout.Draft, client *registry.Client) (*listSource, error) {
	l := newListSource(d, client)
	for _, m := range d.Members {
		ref, err := canonical(m)
		if err == nil {
			err = l.learn(m.Raw, ref)
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", m.Ref, err)
		}
	}
	return l, nil
}

// learn notes that what a manifest names is in its repository too. The first to
// name a blob is asked for it.
func (l *listSource) learn(raw []byte, repo reference.Named) error {
	var refers struct {
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Blobs     []v1.Descriptor `json:"blobs"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &refers); err != nil {
		return err
	}
	all := append(append(refers.Layers, refers.Blobs...), refers.Manifests...)
	if refers.Config != nil {
		all = append(all, *refers.Config)
	}
	for _, d := range all {
		l.comesFrom(d, repo)
	}
	return nil
}

func (l *listSource) comesFrom(d v1.Descriptor, repo reference.Named) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.from[d.Digest]; !ok {
		l.from[d.Digest] = reference.TrimNamed(repo)
	}
}

// Origins implements [registry.Origins].
func (l *listSource) Origins(d v1.Descriptor) []reference.Named {
	l.mu.Lock()
	defer l.mu.Unlock()
	if repo, ok := l.from[d.Digest]; ok {
		return []reference.Named{repo}
	}
	return nil
}

// Open implements [registry.Source].
func (l *listSource) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := l.Source.Open(ctx, d, offset)
	from := l.Origins(d)
	if !errors.Is(err, fs.ErrNotExist) || from == nil {
		return r, err
	}
	repo, err := l.repository(ctx, from[0])
	if err != nil {
		return nil, err
	}
	r, err = repo.Open(ctx, d, offset)
	if err != nil || !d.MediaType.IsIndex() && !d.MediaType.IsImage() || offset > 0 {
		return r, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err == nil {
		err = l.learn(raw, from[0])
	}
	return io.NopCloser(bytes.NewReader(raw)), err
}

func (l *listSource) repository(ctx context.Context, name reference.Named) (*registry.Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if repo, ok := l.repos[name.Name()]; ok {
		return repo, nil
	}
	repo, err := l.client.Repository(ctx, name)
	if err == nil {
		l.repos[name.Name()] = repo
	}
	return repo, err
}

// canonical is the repository of m, and its digest.
func canonical(m layout.Member) (reference.Canonical, error) {
	named, err := reference.ParseNormalizedNamed(m.Ref)
	if err != nil {
		return nil, err
	}
	parsed, err := reference.ParseNormalizedNamed(named.Name() + "@" + m.Descriptor.Digest.String())
	if err != nil {
		return nil, err
	}
	return parsed.(reference.Canonical), nil // it has a digest
}

// elsewhere are the members that came from other repositories, as they are
// called in that of list.
func elsewhere(members []layout.Member, list reference.Named) []reference.Canonical {
	var pushed []reference.Canonical
	for _, m := range members {
		from, err := canonical(m)
		if err != nil || from.Name() == list.Name() {
			continue
		}
		if here, err := reference.WithDigest(reference.TrimNamed(list), from.Digest()); err == nil {
			pushed = append(pushed, here)
		}
	}
	return pushed
}

// readBlob reads a manifest, a config or an attestation of at most limit bytes, and
// verifies it.
func readBlob(ctx context.Context, src registry.Source, d v1.Descriptor, limit int64) (raw []byte, err error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", d.Digest, d.Size, limit)
	}
	r, err := src.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	h, err := v1.Hasher(d.Digest.Algorithm)
	if err != nil {
		return nil, err
	}
	raw, err = io.ReadAll(io.TeeReader(io.LimitReader(r, d.Size), h))
	if err == nil && hex.EncodeToString(h.Sum(nil)) != d.Digest.Hex {
		err = fmt.Errorf("wrong bytes for %s", d.Digest)
	}
	return raw, err
}
