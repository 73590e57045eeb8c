package build

import (
	"maps"
	"strconv"
	"strings"

	"github.com/wherry-oci/wherry/platform"
)

const (
	buildArgPrefix  = "build-arg:"
	sourceDateEpoch = "SOURCE_DATE_EPOCH"
)

// builderID is who made a result, in its provenance: BuildKit says nothing itself.
const builderID = "https://github.com/wherry-oci/wherry"

// frontendAttrs says to the Dockerfile frontend what the request wants of it.
func frontendAttrs(r Request) map[string]string {
	a := map[string]string{"target": r.Target, "cgroup-parent": r.Steps.CgroupParent}
	addPrefixed(a, buildArgPrefix, r.BuildArgs)
	addPrefixed(a, "label:", r.Labels)
	addPrefixed(a, "attest:", attestations(r))
	maps.Copy(a, r.Steps.Resources)
	if r.Steps.Network != "" && r.Steps.Network != "default" {
		a["force-network-mode"] = r.Steps.Network
	}
	if r.Steps.ShmSize > 0 {
		a["shm-size"] = strconv.FormatInt(r.Steps.ShmSize, 10)
	}
	a["add-hosts"] = strings.Join(r.Steps.Hosts, ",")
	a["ulimit"] = strings.Join(r.Steps.Ulimits, ",")
	a["platform"] = joinPlatforms(r)
	if r.Pull {
		a["image-resolve-mode"] = "pull"
	}
	maps.DeleteFunc(a, func(k, v string) bool { return v == "" && !strings.Contains(k, ":") })
	switch {
	case r.NoCache:
		a["no-cache"] = "" // every stage
	case len(r.NoCacheOf) > 0:
		a["no-cache"] = strings.Join(r.NoCacheOf, ",")
	}
	return a
}

// attestations are those of the request; provenance names its builder.
func attestations(r Request) map[string]string {
	all := maps.Clone(r.Attest)
	if provenance, ok := all["provenance"]; ok && !strings.Contains(provenance, "builder-id=") {
		all["provenance"] = strings.TrimPrefix(provenance+",builder-id="+builderID, ",")
	}
	return all
}

func addPrefixed(a map[string]string, prefix string, values map[string]string) {
	for k, v := range values {
		a[prefix+k] = v
	}
}

func joinPlatforms(r Request) string {
	names := make([]string, len(r.Platforms))
	for i, p := range r.Platforms {
		names[i] = platform.Format(p)
	}
	return strings.Join(names, ",")
}

// entitlements are what the request allows its steps, with what its own flags ask for.
func entitlements(r Request) []string {
	allow := r.Allow
	if r.Steps.Network == "host" {
		allow = append(allow[:len(allow):len(allow)], "network.host")
	}
	return allow
}

// frontend is the one that is asked: an image that BUILDKIT_SYNTAX names goes before the
// built-in one and before the Dockerfile's syntax line.
func frontend(r Request, attrs map[string]string) string {
	cmdline := strings.TrimSpace(r.BuildArgs["BUILDKIT_SYNTAX"])
	if cmdline == "" {
		return "dockerfile.v0"
	}
	attrs["source"], _, _ = strings.Cut(cmdline, " ")
	attrs["cmdline"] = cmdline
	return "gateway.v0"
}
