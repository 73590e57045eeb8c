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
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// referenceType marks the manifests that BuildKit puts into an index beside the
// images they speak about (provenance and SBOM attestations).
const referenceType = "vnd.docker.reference.type"

// AttestationSubject is the annotation by which an attestation in an index names the
// manifest that it is about: its digest.
const AttestationSubject = "vnd.docker.reference.digest"

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

// Parse reads "os/arch[/variant]", "arch[/variant]" or "os", and returns it normalised.
// The system may have a version and features in brackets, as containerd writes them:
// "windows(10.0.20348)/amd64", "linux(+erofs)/amd64". A missing operating system is
// linux; a missing architecture is this machine's. Architectures may be spelled as the
// image specification, uname -m or Debian do.
func Parse(s string) (v1.Platform, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return v1.Platform{}, fmt.Errorf("empty platform")
	}
	text := withSystem(s)
	p, err := platforms.Parse(text)
	if err != nil || !systemWords.MatchString(p.OSVersion+strings.Join(p.OSFeatures, "")) {
		return v1.Platform{}, fmt.Errorf("invalid platform %q: want OS/ARCH[/VARIANT], as linux/arm64", s)
	}
	return Normalize(fromOCI(p)), nil
}

// systemWords are what can be written of a version or a feature, and read again.
var systemWords = regexp.MustCompile(`^[A-Za-z0-9_.%+()/-]*$`)

// withSystem puts linux in front of what begins with an architecture: images are for
// linux, whatever runs wherry.
func withSystem(s string) string {
	first, _, _ := strings.Cut(s, "/")
	arch, _ := spelled(first, "")
	if _, isSystem := known()[strings.ToLower(first)]; isSystem || !isArchitecture(arch) {
		return s
	}
	return "linux/" + s
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
// arm64 without the redundant v8, arm with v7 where no variant is given. What has an
// architecture alone is for linux; what has neither stays nothing.
func Normalize(p v1.Platform) v1.Platform {
	if p.OS == "" && p.Architecture == "" {
		return v1.Platform{}
	}
	if p.OS == "" {
		p.OS = "linux"
	}
	p.Architecture, p.Variant = spelled(p.Architecture, p.Variant)
	return fromOCI(platforms.Normalize(toOCI(p)))
}

// Format writes p as Parse reads it, normalised: "os/arch[/variant]", and where there is
// one, with the version of the system, by which images of Windows differ. It is
// "unknown" for what is no platform.
func Format(p v1.Platform) string {
	return platforms.FormatAll(toOCI(Normalize(p)))
}

// Matches reports whether an image for have is one for want: the same operating
// system, architecture and variant after normalisation. An arm/v6 image does not
// match arm/v7 though it would run there; [Select] is for that. Of versions and
// features of the system it demands what containerd does: Windows images for another
// build don't match a version, and an image that needs a feature matches none without.
func Matches(want, have v1.Platform) bool {
	return platforms.OnlyStrict(toOCI(Normalize(want))).Match(toOCI(Normalize(have)))
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
