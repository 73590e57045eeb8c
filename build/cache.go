//go:build linux

package build

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/wherry-oci/wherry/build/engine"
)

// ParseCache reads what --cache-from and --cache-to take: "type=TYPE[,KEY=VALUE...]" as
// CSV, or the names of images in registries.
func ParseCache(s string) ([]Cache, error) {
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return nil, fmt.Errorf("invalid cache %q: %w", s, err)
	}
	if !strings.Contains(s, "=") {
		caches := make([]Cache, len(fields))
		for i, name := range fields {
			caches[i] = Cache{Type: "registry", Attrs: map[string]string{"ref": name}}
		}
		return caches, nil
	}
	c := Cache{Attrs: map[string]string{}}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid cache %q: %q is not KEY=VALUE", s, f)
		}
		if k = strings.ToLower(strings.TrimSpace(k)); k == "type" {
			c.Type = v
		} else {
			c.Attrs[k] = v
		}
	}
	return []Cache{c}, c.check(s)
}

func (c Cache) check(s string) error {
	known := append([]string{"inline", "local", "registry"}, engine.CloudCaches...)
	switch {
	case c.Type == "":
		return fmt.Errorf("invalid cache %q: type is missing", s)
	case slices.Contains([]string{"azblob", "gha", "s3"}, c.Type) && !slices.Contains(known, c.Type):
		return fmt.Errorf("invalid cache %q: this wherry was built without the tag cloudcache, which type %s needs", s, c.Type)
	case !slices.Contains(known, c.Type):
		return fmt.Errorf("invalid cache %q: no type %q (there is %s)", s, c.Type, strings.Join(known, ", "))
	}
	return nil
}

// cacheImports leaves out folders without a cache: BuildKit would make them, and say nothing.
func cacheImports(r Request) []client.CacheOptionsEntry {
	var entries []client.CacheOptionsEntry
	for _, c := range r.CacheFrom {
		if src := c.Attrs["src"]; c.Type == "local" && src != "" && !exists(filepath.Join(src, ocispecs.ImageIndexFile)) {
			notify(r.Notice, fmt.Sprintf("no build cache in %q yet", src))
			continue
		}
		entries = append(entries, client.CacheOptionsEntry(c))
	}
	return entries
}

// cacheExports puts folders last: BuildKit's client writes the digest of the last cache
// into the index of a folder.
func cacheExports(r Request) []client.CacheOptionsEntry {
	var entries []client.CacheOptionsEntry
	for _, c := range r.CacheTo {
		entries = append(entries, client.CacheOptionsEntry(c))
	}
	last := func(e client.CacheOptionsEntry) int {
		if e.Type == "local" {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(entries, func(a, b client.CacheOptionsEntry) int { return cmp.Compare(last(a), last(b)) })
	return entries
}
