package layout

import (
	"context"
	"fmt"
	"os"

	"github.com/distribution/reference"
)

// Tag gives img, an entry or a manifest below one, another name. name is a
// repository, "latest" being the default tag. What had the name before stays as
// an untagged entry. A [*NotFoundError] says that img was removed meanwhile.
func (s *Store) Tag(img *Image, name string) error {
	named, err := parseName(name)
	if err != nil {
		return err
	}
	if _, pinned := named.(reference.Digested); pinned {
		return fmt.Errorf("invalid name %q: a tag cannot have a digest", name)
	}
	ctx := context.Background()
	release, err := s.share(ctx) // or the collector could take the image between the check and the name
	if err != nil {
		return err
	}
	defer release()
	if !s.has(img.desc) {
		if fi, err := os.Stat(s.BlobPath(img.desc.Digest)); err == nil { // damaged
			return &DigestError{Digest: img.desc.Digest, Size: img.desc.Size, Bytes: fi.Size()}
		}
		return &NotFoundError{Ref: img.desc.Digest.String()}
	}
	_, err = s.name(ctx, img.desc, []string{reference.TagNameOnly(named).String()})
	return err
}
