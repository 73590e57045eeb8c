package registry

import (
	"context"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Repository returns what ref's repository has as an [Image] that stands for
// nothing: its Descriptor is zero, but it opens every manifest and blob of the
// repository by its digest. Nothing is asked for yet. Open's error is a
// [*NotFoundError] if no host has the blob.
func (c *Client) Repository(ctx context.Context, ref reference.Named) (*Image, error) {
	hosts, err := c.endpoints(ctx, reference.Domain(ref), reference.Path(ref), docker.HostCapabilityPull)
	if err != nil {
		return nil, err
	}
	return &Image{client: c, ref: reference.TrimNamed(ref), hosts: hosts}, nil
}
