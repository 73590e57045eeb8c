//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/wherry-oci/wherry/build"
)

// readCaches reads --cache-from and --cache-to. A name alone is that of an image in a registry.
func readCaches(e *env, o buildOptions, req *build.Request) (err error) {
	if req.CacheFrom, err = buildCaches(o.CacheFrom); err != nil {
		return err
	}
	if req.CacheTo, err = buildCaches(o.CacheTo); err != nil {
		return err
	}
	if size := firstOf(o.CacheSize, e.Getenv("WHERRY_CACHE_SIZE")); size != "" {
		if req.CacheSize, err = units.RAMInBytes(size); err != nil || req.CacheSize <= 0 {
			return buildUsage("invalid --cache-size %q: want a size, as 20gb", size)
		}
	}
	if inline, err := strconv.ParseBool(req.BuildArgs["BUILDKIT_INLINE_CACHE"]); err == nil && inline {
		req.CacheTo = append(req.CacheTo, build.Cache{Type: "inline"})
	}
	return nil
}

func buildCaches(list []string) ([]build.Cache, error) {
	var caches []build.Cache
	for _, s := range list {
		parsed, err := build.ParseCache(s)
		if err != nil {
			return nil, err
		}
		caches = append(caches, parsed...)
	}
	return caches, nil
}

// readAttests reads --attest and its two shorthands. Without any a result carries no
// attestations, so that it depends on nothing but its sources.
func readAttests(_ *env, o buildOptions, req *build.Request) error {
	all := o.Attests
	for kind, value := range map[string]string{"provenance": o.Provenance, "sbom": o.SBOM} {
		if value != "" {
			all = append(all[:len(all):len(all)], "type="+kind+","+switched(value))
		}
	}
	req.Attest = map[string]string{}
	for _, s := range all {
		kind, attrs, disabled, err := attestation(s)
		if err != nil {
			return err
		}
		if disabled {
			delete(req.Attest, kind)
		} else {
			req.Attest[kind] = attrs
		}
	}
	return nil
}

// switched reads the shorthands' "true" and "false" as what --attest says for them.
func switched(value string) string {
	if on, err := strconv.ParseBool(value); err == nil {
		return "disabled=" + strconv.FormatBool(!on)
	}
	return value
}

func attestation(s string) (kind, attrs string, disabled bool, err error) {
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return "", "", false, fmt.Errorf("invalid --attest %q: %w", s, err)
	}
	var rest []string
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		switch {
		case !ok:
			return "", "", false, fmt.Errorf("invalid --attest %q: %q is not KEY=VALUE", s, f)
		case k == "type":
			kind = v
		case k == "disabled":
			if disabled, err = strconv.ParseBool(v); err != nil {
				return "", "", false, fmt.Errorf("invalid --attest %q: disabled is true or false", s)
			}
		default:
			rest = append(rest, f)
		}
	}
	if kind != "provenance" && kind != "sbom" {
		return "", "", false, fmt.Errorf("invalid --attest %q: no type %q (there is provenance, sbom)", s, kind)
	}
	return kind, strings.Join(rest, ","), disabled, nil
}
