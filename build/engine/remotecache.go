//go:build linux

package engine

import (
	"context"

	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	"github.com/moby/buildkit/cache/remotecache/local"
	"github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/session"
)

// caches are the places a build cache can be sent to and read from, by their types.
type caches struct {
	exporters map[string]remotecache.ResolveCacheExporterFunc
	importers map[string]remotecache.ResolveCacheImporterFunc
}

// newCaches knows registries, folders of the client, and images that carry their cache
// within them; these are read as "registry". Built with the tag cloudcache it knows the
// stores of cloud providers too.
func newCaches(w *layoutWorker, sm *session.Manager) caches {
	c := caches{
		exporters: map[string]remotecache.ResolveCacheExporterFunc{
			"inline":   inline.ResolveCacheExporterFunc(),
			"local":    local.ResolveCacheExporterFunc(sm),
			"registry": registry.ResolveCacheExporterFunc(sm, w.RegistryHosts),
		},
		importers: map[string]remotecache.ResolveCacheImporterFunc{
			"local":    local.ResolveCacheImporterFunc(sm),
			"registry": registry.ResolveCacheImporterFunc(sm, w.ContentStore(), w.RegistryHosts),
		},
	}
	c.addCloud()
	for kind, resolve := range c.exporters {
		if kind != "inline" { // whose layers are the image's
			c.exporters[kind] = compressedInParallel(resolve)
		}
	}
	return c
}

// compressedInParallel has layers that only the cache has compressed as those of images are.
func compressedInParallel(resolve remotecache.ResolveCacheExporterFunc) remotecache.ResolveCacheExporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Exporter, error) {
		e, err := resolve(ctx, g, attrs)
		if err != nil {
			return nil, err
		}
		return parallelCache{e}, nil
	}
}

type parallelCache struct{ remotecache.Exporter }

func (c parallelCache) Config() remotecache.Config {
	config := c.Exporter.Config()
	config.Compression = inParallel(config.Compression)
	return config
}
