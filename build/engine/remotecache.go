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

// cacheExporters are the places a build cache can be sent to. "inline" is the image itself.
func cacheExporters(w *layoutWorker, sm *session.Manager) map[string]remotecache.ResolveCacheExporterFunc {
	return map[string]remotecache.ResolveCacheExporterFunc{
		"inline":   inline.ResolveCacheExporterFunc(),
		"local":    compressedInParallel(local.ResolveCacheExporterFunc(sm)),
		"registry": compressedInParallel(registry.ResolveCacheExporterFunc(sm, w.RegistryHosts)),
	}
}

// cacheImporters are the places a build cache can be read from. That of an image with an
// inline cache is "registry".
func cacheImporters(w *layoutWorker, sm *session.Manager) map[string]remotecache.ResolveCacheImporterFunc {
	return map[string]remotecache.ResolveCacheImporterFunc{
		"local":    local.ResolveCacheImporterFunc(sm),
		"registry": registry.ResolveCacheImporterFunc(sm, w.ContentStore(), w.RegistryHosts),
	}
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
