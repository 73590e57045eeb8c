//go:build linux && !cloudcache

package engine

// CloudCaches are the types that only a binary built with the tag cloudcache has: they
// make it 15 MB larger.
var CloudCaches []string

func (caches) addCloud() {}
