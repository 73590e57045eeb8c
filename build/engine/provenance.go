//go:build linux

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/solver/result"
	"github.com/moby/buildkit/util/urlutil"
	"github.com/moby/buildkit/version"
)

// nameBuildKit has SBOMs say which BuildKit has supplemented them; its own program knows
// when it is linked.
var nameBuildKit = sync.OnceFunc(func() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	for _, m := range info.Deps {
		if m.Path == version.Package {
			version.Version = m.Version
		}
	}
})

// discreet returns src with provenance that tells nothing of this machine: BuildKit
// writes down the folders of named contexts, and passwords within the URLs of proxies.
// A reproducible one does not tell when it was made either, nor of the layers before
// their times were set, nor the solver's own digests of the steps.
func discreet(src *exporter.Source, reproducible bool) *exporter.Source {
	if len(src.Attestations) == 0 {
		return src
	}
	out := src.Clone()
	for id, list := range src.Attestations {
		list = slices.Clone(list)
		for n, a := range list {
			if string(a.Metadata[result.AttestationReasonKey]) == result.AttestationReasonProvenance && a.ContentFunc != nil {
				list[n].ContentFunc = func(ctx context.Context) ([]byte, error) {
					text, err := a.ContentFunc(ctx)
					if err != nil {
						return nil, err
					}
					return discreetJSON(text, reproducible)
				}
			}
		}
		out.Attestations[id] = list
	}
	return out
}

// momentary are the fields of a predicate that are others each time, of SLSA 0.2 and 1.
var momentary = []string{
	"buildStartedOn", "buildFinishedOn", "buildInvocationID",
	"startedOn", "finishedOn", "invocationId", "invocationID", "digestMapping", "layers", "resourceUsage", "sysUsage",
}

func discreetJSON(text []byte, reproducible bool) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	return json.MarshalIndent(withoutHost(v, reproducible), "", "  ")
}

// withoutHost goes through a value of JSON, which it changes.
func withoutHost(v any, reproducible bool) any {
	switch v := v.(type) {
	case map[string]any:
		maps.DeleteFunc(v, func(key string, _ any) bool {
			return strings.HasPrefix(key, "sharedkey:") || key == "local.sharedkeyhint" || key == AttrEmulators || reproducible && slices.Contains(momentary, key)
		})
		for key, value := range v {
			v[key] = withoutHost(value, reproducible)
		}
	case []any:
		for n, value := range v {
			v[n] = withoutHost(value, reproducible)
		}
	case string:
		return withoutPassword(v)
	}
	return v
}

// withoutPassword hides the credentials of a URL, or of one that is a variable's value.
func withoutPassword(s string) string {
	name, value := "", s
	if before, after, ok := strings.Cut(s, "="); ok && !strings.Contains(before, "/") {
		name, value = before+"=", after
	}
	u, err := url.Parse(value)
	if err != nil || u.User == nil || !slices.Contains([]string{"http", "https", "ftp", "socks5", "socks5h"}, u.Scheme) {
		return s
	}
	return name + urlutil.RedactCredentials(value)
}

// fileExporter is an exporter of files: what it writes of a build's provenance is discreet too.
type fileExporter struct{ exporter.Exporter }

func (e *fileExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	own := maps.Clone(attrs)
	reproducible := takeReproducible(own)
	inner, err := e.Exporter.Resolve(ctx, id, own)
	return &fileExport{inner, reproducible}, err
}

type fileExport struct {
	exporter.ExporterInstance
	reproducible bool
}

func (i *fileExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	return i.ExporterInstance.Export(ctx, discreet(src, i.reproducible), info)
}
