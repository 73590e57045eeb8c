package platform

import (
	"slices"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Select returns the manifest of an index that serves want best: the same
// variant, else the nearest older variant of the same architecture, else one that
// names no variant. It never answers with another operating system or architecture,
// nor with an attestation. Among equals the one wins that uses more of the features
// that want has, then the first, as the image specification says. The error is a
// [*NoMatchError].
func Select(from []v1.Descriptor, want v1.Platform) (v1.Descriptor, error) {
	want = Normalize(want)
	none := &NoMatchError{Want: want}
	ladder := rungs(toOCI(want))
	best, at, have := -1, len(ladder), ocispecs.Platform{}
	for i, d := range from {
		if d.Platform == nil || IsAttestation(d) {
			continue
		}
		p := Normalize(*d.Platform)
		none.Have = append(none.Have, p)
		if p.OS != want.OS || p.Architecture != want.Architecture {
			continue
		}
		n := slices.IndexFunc(ladder, func(r platforms.MatchComparer) bool { return r.Match(toOCI(p)) })
		if n >= 0 && (n < at || n == at && ladder[n].Less(toOCI(p), have)) {
			best, at, have = i, n, toOCI(p)
		}
	}
	if best < 0 {
		return v1.Descriptor{}, none
	}
	return from[best], nil
}

// rungs are what serves want, the best first: itself (of the same version of its system,
// if there is one), then what containerd takes for it
// (older variants of amd64, arm and arm64), then what that does not know.
func rungs(want ocispecs.Platform) []platforms.MatchComparer {
	var all []platforms.MatchComparer
	if want.OSVersion != "" {
		all = append(all, sameVersion{platforms.OnlyStrict(want), want.OSVersion})
	}
	all = append(all, platforms.OnlyStrict(want), platforms.Only(want))
	for _, variant := range older(want.Architecture, want.Variant) {
		p := want
		p.Variant = variant
		all = append(all, platforms.OnlyStrict(p))
	}
	return all
}

// sameVersion demands the very version of the system: images for older ones of Windows
// run as well.
type sameVersion struct {
	platforms.MatchComparer
	version string
}

// Match implements [platforms.Matcher].
func (s sameVersion) Match(p ocispecs.Platform) bool {
	return p.OSVersion == s.version && s.MatchComparer.Match(p)
}

// older are the variants that a machine of this one runs as well, by the table of the
// image specification (image-index.md, Platform Variants) and what Go means by them;
// "" is the least that all machines of an architecture are. Those of amd64, arm and
// arm64 are containerd's business, but for what is newer than it.
func older(arch, variant string) []string {
	if variant == "" || arch == "arm" {
		return nil
	}
	ladder := map[string][]string{
		"ppc64le": {"power10", "power9", "power8"},
		"riscv64": {"rva23u64", "rva22u64", "rva20u64"},
	}[arch]
	if i := slices.Index(ladder, variant); i >= 0 {
		return append(ladder[i+1:], "")
	}
	return []string{""}
}
