package build

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotation is a key and a value that a result carries outside of its config.
type Annotation struct {
	key   exptypes.AnnotationKey
	value string
}

var annotationPattern = regexp.MustCompile(`^(?:([a-z,-]+)(?:\[([A-Za-z0-9_/,-]+)\])?:)?(\S+)$`)

// ParseAnnotation reads what --annotation takes: "[TYPE[PLATFORM]:]KEY=VALUE". Types are
// manifest (the default), index, manifest-descriptor and index-descriptor; several of
// them, and several platforms, are separated by commas.
func ParseAnnotation(s string) ([]Annotation, error) {
	key, value, ok := strings.Cut(s, "=")
	parts := annotationPattern.FindStringSubmatch(key)
	if !ok || parts == nil {
		return nil, fmt.Errorf("invalid annotation %q: want [TYPE:]KEY=VALUE", s)
	}
	at, err := annotationPlatforms(parts[2])
	if err != nil {
		return nil, fmt.Errorf("invalid annotation %q: %w", s, err)
	}
	var list []Annotation
	for kind := range strings.SplitSeq(parts[1], ",") {
		if kind == "" {
			kind = exptypes.AnnotationManifest
		}
		switch kind {
		case exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
			for _, p := range at {
				list = append(list, Annotation{exptypes.AnnotationKey{Type: kind, Platform: p, Key: parts[3]}, value})
			}
		case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor:
			list = append(list, Annotation{exptypes.AnnotationKey{Type: kind, Key: parts[3]}, value})
		default:
			return nil, fmt.Errorf("invalid annotation %q: no type %q (there is manifest, index, manifest-descriptor, index-descriptor)", s, kind)
		}
	}
	return list, nil
}

// annotationPlatforms reads a list of platforms; none means every one, a nil.
func annotationPlatforms(list string) ([]*ocispecs.Platform, error) {
	if list == "" {
		return []*ocispecs.Platform{nil}, nil
	}
	var at []*ocispecs.Platform
	for s := range strings.SplitSeq(list, ",") {
		p, err := platforms.Parse(s)
		if err != nil {
			return nil, err
		}
		at = append(at, &p)
	}
	return at, nil
}

// attr is the annotation as an attribute of an exporter.
func (a Annotation) attr() (key, value string) { return a.key.String(), a.value }

// platform is the one that the annotation is for, as platform.Format has it; "": all.
func (a Annotation) platform() string {
	if a.key.Platform == nil {
		return ""
	}
	return platforms.Format(platforms.Normalize(*a.key.Platform))
}
