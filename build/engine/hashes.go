//go:build linux

package engine

import (
	"context"
	"errors"
	"strconv"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
)

// hashesKept is the size of BuildKit's process-wide cache of content hashes.
const hashesKept = 20

// forgetHashes pushes this engine's entries out of BuildKit's process-wide cache of
// content hashes. They hold handles on the databases that are being closed, and the
// next engine of this process would use them: its refs have the same IDs.
func forgetHashes(ctx context.Context) error {
	for i := range hashesKept {
		if _, err := contenthash.GetCacheContext(ctx, nobody{id: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	return nil
}

// nobody is the metadata of a ref that does not exist.
type nobody struct {
	cache.RefMetadata // nil: nothing but these two methods is called
	id                string
}

func (n nobody) ID() string { return n.id }

func (nobody) GetExternal(string) ([]byte, error) { return nil, errors.New("no such ref") }
