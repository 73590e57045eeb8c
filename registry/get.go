package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Source is where the manifests and blobs of one image (or index) are read from.
type Source interface {
	// Descriptor of the manifest or index the source stands for.
	Descriptor() v1.Descriptor
	// Open reads manifest, config or layer d from offset on. The reader may end
	// early or lie: who reads verifies.
	Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error)
}

// Image is an image or index in a registry: what a name resolved to. It is a
// [Source]. What a later Open reads is what the name meant when it was resolved,
// also when the tag moves meanwhile.
type Image struct {
	client *Client
	ref    reference.Named
	desc   v1.Descriptor
	raw    []byte
	hosts  []*endpoint // to read from, the likeliest first

	serves atomic.Pointer[endpoint] // the host that a blob came from last
}

// Descriptor of the manifest or index that the name resolved to. Its MediaType
// tells which of the two it is; it has no platform.
func (i *Image) Descriptor() v1.Descriptor { return i.desc }

// RawManifest is the manifest or index that the name resolved to.
func (i *Image) RawManifest() []byte { return i.raw }

// Get resolves ref, by its digest or else by its tag, on the first host that has
// it. The manifest has been read whole and its digest verified when Get returns.
//
// The error is a [*NotFoundError] if no host has it. Otherwise it is the first
// host's that said something else: [*UnauthorizedError], [*UnreachableError],
// [*TLSError], [*RateLimitError], [*StatusError], [*DigestError] or [*FormatError].
func (c *Client) Get(ctx context.Context, ref reference.Named) (*Image, error) {
	caps := docker.HostCapabilityPull | docker.HostCapabilityResolve
	if _, pinned := ref.(reference.Digested); pinned {
		caps = docker.HostCapabilityPull
	}
	hosts, err := c.endpoints(ctx, reference.Domain(ref), reference.Path(ref), caps)
	if err != nil {
		return nil, err
	}
	var failures []error
	for n, host := range hosts {
		s := c.session(host, ref, "pull")
		if n < len(hosts)-1 {
			s.tries = 1 // the next host is the better second try
		}
		raw, desc, err := s.manifest(ctx, identifier(ref), nil)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			failures = append(failures, err)
			continue
		}
		c.noticeFallback(ref, host, hosts[0], failures)
		return &Image{client: c, ref: ref, desc: desc, raw: raw, hosts: c.readers(ctx, ref, hosts[:n])}, nil
	}
	c.noticeExcluded(ctx, ref)
	return nil, worst(failures)
}

// readers are the hosts to read blobs from: all that may serve digests, in the
// configured order, but those that failed already at the end.
func (c *Client) readers(ctx context.Context, ref reference.Named, failed []*endpoint) []*endpoint {
	all, err := c.endpoints(ctx, reference.Domain(ref), reference.Path(ref), docker.HostCapabilityPull)
	if err != nil {
		return failed // cannot be: what resolved can pull
	}
	ordered := slices.Clone(all)
	slices.SortStableFunc(ordered, func(a, b *endpoint) int {
		return boolToInt(slices.Contains(failed, a)) - boolToInt(slices.Contains(failed, b))
	})
	return ordered
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// worst of several hosts' errors: that one does not have an image tells less
// than that another could not be asked.
func worst(failures []error) error {
	for _, err := range failures {
		if !is[*NotFoundError](err) {
			return err
		}
	}
	return failures[0]
}

// noticeFallback tells, once a registry, that not its first host answered.
func (c *Client) noticeFallback(ref reference.Named, answered, first *endpoint, failures []error) {
	if answered == first {
		return
	}
	why := "does not have it"
	if !is[*NotFoundError](failures[0]) {
		why = "failed (" + failures[0].Error() + ")"
	}
	c.tellFallback(reference.FamiliarString(ref), answered, first, why)
}

func (c *Client) tellFallback(what string, answered, first *endpoint, why string) {
	c.notice("fallback "+answered.name, fmt.Sprintf("%s comes from %s: %s %s", what, answered.account(), first.account(), why))
}

// identifier is what a manifest is asked for by.
func identifier(ref reference.Named) string {
	if d, ok := ref.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

// acceptable are the manifests that can be used, as registries want to be told.
func acceptable() string {
	return strings.Join([]string{
		string(types.OCIImageIndex), string(types.DockerManifestList),
		string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
	}, ", ")
}

// manifest reads and verifies the manifest or index that id, a tag or a digest,
// stands for. HEAD is not asked first: some registries lack it, and others count it.
func (s *session) manifest(ctx context.Context, id string, accept []string) ([]byte, v1.Descriptor, error) {
	header := http.Header{"Accept": append([]string{acceptable()}, accept...)}
	resp, err := s.get(ctx, s.repo+"/manifests/"+id, header)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, v1.Descriptor{}, s.fault(err)
	}
	if len(raw) > maxManifest {
		return nil, v1.Descriptor{}, &FormatError{Ref: s.ref, Why: fmt.Sprintf("it is larger than %d MiB", maxManifest>>20)}
	}
	digest, err := s.verify(raw, id, resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	mediaType, err := manifestType(raw, resp.Header.Get("Content-Type"))
	if err != nil {
		return nil, v1.Descriptor{}, &FormatError{Ref: s.ref, Why: err.Error()}
	}
	return raw, v1.Descriptor{MediaType: mediaType, Size: int64(len(raw)), Digest: digest}, nil
}

// verify that raw is what id, if it is a digest, or else the registry's header
// promises. A tag without a header promises nothing.
func (s *session) verify(raw []byte, id, header string) (v1.Hash, error) {
	want, err := v1.NewHash(id)
	if err != nil && strings.Contains(id, ":") {
		return v1.Hash{}, &FormatError{Ref: s.ref, Why: "its digest is of a type that cannot be verified"}
	}
	if err != nil {
		want, err = v1.NewHash(header)
	}
	algorithm := want.Algorithm
	if err != nil {
		algorithm = "sha256"
	}
	got, err := hashOf(algorithm, raw)
	if err != nil {
		return v1.Hash{}, &FormatError{Ref: s.ref, Why: err.Error()}
	}
	if want.Hex != "" && got != want {
		return v1.Hash{}, &DigestError{Host: s.to.account(), Want: want, Got: got}
	}
	return got, nil
}

// get something below the API. Any status but success is an error.
func (s *session) get(ctx context.Context, path string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.to.url(path).String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = h
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, s.fault(err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return nil, s.refused(resp)
	}
	return resp, nil
}

// Open reads manifest, config or layer d from offset on. A connection that
// breaks or stalls is made anew, and only the rest is asked for. The reader ends
// after d.Size bytes at most; whether they are the right ones is for the caller
// to verify.
func (i *Image) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("cannot read %s from byte %d: it has %d", d.Digest, offset, d.Size)
	}
	if d.Digest == i.desc.Digest {
		offset = min(offset, int64(len(i.raw)))
		return io.NopCloser(bytes.NewReader(i.raw[offset:])), nil
	}
	return openBlob(ctx, i, d, offset)
}
