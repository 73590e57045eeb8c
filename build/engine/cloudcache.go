//go:build linux && cloudcache

package engine

import (
	"github.com/moby/buildkit/cache/remotecache/azblob"
	"github.com/moby/buildkit/cache/remotecache/gha"
	"github.com/moby/buildkit/cache/remotecache/s3"
)

// CloudCaches are the types that only a binary built with the tag cloudcache has: they
// make it 15 MB larger.
var CloudCaches = []string{"azblob", "gha", "s3"}

// addCloud adds GitHub's cache service, Amazon's S3 and Azure's blobs.
func (c caches) addCloud() {
	c.exporters["azblob"], c.importers["azblob"] = azblob.ResolveCacheExporterFunc(), azblob.ResolveCacheImporterFunc()
	c.exporters["gha"], c.importers["gha"] = gha.ResolveCacheExporterFunc(nil, nil), gha.ResolveCacheImporterFunc(nil, nil)
	c.exporters["s3"], c.importers["s3"] = s3.ResolveCacheExporterFunc(), s3.ResolveCacheImporterFunc()
}
