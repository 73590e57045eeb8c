package registry

import (
	"context"
	"errors"
	"io"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var errNotYet = errors.New("not built yet")

// Source is where the manifests and blobs of one image (or index) are read from.
type Source interface {
	// Descriptor of the manifest or index the source stands for.
	Descriptor() v1.Descriptor
	// Open reads manifest, config or layer d from offset on. The reader may end
	// early or lie: who reads verifies.
	Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error)
}

// Image is an image or index in a registry: what a name resolved to. It is a
// [Source].
type Image struct {
	desc v1.Descriptor
}

// Get resolves ref.
func (c *Client) Get(ctx context.Context, ref reference.Named) (*Image, error) {
	return nil, errNotYet
}

// Descriptor of the manifest or index that the name resolved to.
func (i *Image) Descriptor() v1.Descriptor { return i.desc }

// Open reads manifest, config or layer d from offset on.
func (i *Image) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	return nil, errNotYet
}
