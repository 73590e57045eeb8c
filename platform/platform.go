// Package platform names what a container image runs on: operating system,
// architecture and variant.
//
// It parses what users type, normalises it (x86_64 is amd64, arm64/v8 is arm64),
// compares platforms, and selects the one manifest of an image index that fits.
// Platforms are ggcr's [v1.Platform]; the rules are those of containerd and of
// the OCI image specification's image-index.md.
//
// It does not read images, talk to registries or run anything.
package platform

import (
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// referenceType marks the manifests that BuildKit puts into an index beside the
// images they speak about (provenance and SBOM attestations).
const referenceType = "vnd.docker.reference.type"

// NoMatchError says that an image has no manifest for the platform asked for.
type NoMatchError struct {
	Want v1.Platform
	Have []v1.Platform // what there is instead, normalised; may be empty
}

func (e *NoMatchError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no manifest for %s", Format(e.Want))
	}
	have := make([]string, len(e.Have))
	for i, p := range e.Have {
		have[i] = Format(p)
	}
	return fmt.Sprintf("no manifest for %s (there is %s)", Format(e.Want), strings.Join(have, ", "))
}

// Parse reads "os/arch[/variant]" or "arch" and returns it normalised. A missing
// operating system is linux; a missing architecture is this machine's.
func Parse(s string) (v1.Platform, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return v1.Platform{}, fmt.Errorf("empty platform")
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return v1.Platform{}, fmt.Errorf("invalid platform %q: want OS/ARCH[/VARIANT], as linux/arm64", s)
	}
	if !strings.Contains(s, "/") && p.OS == runtime.GOOS && p.OS != s {
		p.OS = "linux" // only an architecture was given; images are for linux, whatever runs wherry
	}
	return fromOCI(platforms.Normalize(p)), nil
}

// ParseAll parses a list whose elements may themselves be separated by commas,
// as --platform takes it. The order is kept, duplicates are dropped.
func ParseAll(list []string) ([]v1.Platform, error) {
	var all []v1.Platform
	for _, element := range list {
		for s := range strings.SplitSeq(element, ",") {
			p, err := Parse(s)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(all, p.Equals) {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// Default is the platform of images that run on this machine. Its operating
// system is linux everywhere: elsewhere a virtual machine runs the containers.
func Default() v1.Platform {
	p := platforms.Normalize(platforms.DefaultSpec())
	return fromOCI(ocispecs.Platform{OS: "linux", Architecture: p.Architecture, Variant: p.Variant})
}

// Normalize returns p with the field's standard spellings: amd64 for x86_64,
// arm64 without the redundant v8, arm with v7 where no variant is given.
func Normalize(p v1.Platform) v1.Platform {
	return fromOCI(platforms.Normalize(toOCI(p)))
}

// Format writes p as "os/arch[/variant]", normalised.
func Format(p v1.Platform) string {
	p = Normalize(p)
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Matches reports whether an image for have is one for want: the same operating
// system, architecture and variant after normalisation. An arm/v6 image does not
// match arm/v7 though it would run there; [Select] is for that.
func Matches(want, have v1.Platform) bool {
	return platforms.OnlyStrict(platforms.Normalize(toOCI(want))).Match(platforms.Normalize(toOCI(have)))
}

// Select returns the manifest of an index that serves want best: the same
// variant, else the nearest older variant of the same architecture. It never
// answers with another operating system or architecture, nor with an
// attestation. Among equals the first one wins, as the image specification
// says. The error is a [*NoMatchError].
func Select(from []v1.Descriptor, want v1.Platform) (v1.Descriptor, error) {
	want = Normalize(want)
	better := platforms.Only(toOCI(want))
	var fits []v1.Descriptor
	none := &NoMatchError{Want: want}
	for _, d := range from {
		if d.Platform == nil || IsAttestation(d) {
			continue
		}
		have := Normalize(*d.Platform)
		none.Have = append(none.Have, have)
		if have.OS == want.OS && have.Architecture == want.Architecture && better.Match(toOCI(have)) {
			fits = append(fits, d)
		}
	}
	if len(fits) == 0 {
		return v1.Descriptor{}, none
	}
	sort.SliceStable(fits, func(i, j int) bool {
		return better.Less(toOCI(Normalize(*fits[i].Platform)), toOCI(Normalize(*fits[j].Platform)))
	})
	return fits[0], nil
}

// IsAttestation reports whether d, a child of an index, speaks about an image
// instead of being one: BuildKit's attestations carry an annotation and the
// platform unknown/unknown.
func IsAttestation(d v1.Descriptor) bool {
	if d.Annotations[referenceType] != "" {
		return true
	}
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func toOCI(p v1.Platform) ocispecs.Platform {
	return ocispecs.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}
}

func fromOCI(p ocispecs.Platform) v1.Platform {
	return v1.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}
}
