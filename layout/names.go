package layout

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// parseName is docker's normaliser with errors that quote what they are about:
// a name may come from an archive and hold anything.
func parseName(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err == nil {
		return named, nil
	}
	reason := reference.ErrReferenceInvalidFormat
	if _, lower := reference.ParseNormalizedNamed(strings.ToLower(s)); lower == nil {
		reason = reference.ErrNameContainsUppercase
	} else if errors.Is(err, reference.ErrNameTooLong) {
		reason = reference.ErrNameTooLong
	}
	return nil, fmt.Errorf("invalid name %q: %w", s, reason)
}

// entryNames normalises names for entries that point at h.
func entryNames(names []string, h v1.Hash) ([]string, error) {
	full := make([]string, 0, len(names))
	for _, n := range names {
		named, err := parseName(n)
		if err != nil {
			return nil, err
		}
		if pinned, ok := named.(reference.Digested); ok {
			if pinned.Digest().String() != h.String() {
				return nil, fmt.Errorf("the name %q cannot stand for image %s", n, h)
			}
			if named, err = reference.WithDigest(reference.TrimNamed(named), pinned.Digest()); err != nil {
				return nil, fmt.Errorf("invalid name %q: %w", n, err)
			}
		}
		full = append(full, reference.TagNameOnly(named).String())
	}
	return full, nil
}

// entryName finds the full normalised name of an entry in its annotations. What
// we write needs no work. containerd writes the tag alone into the ref.name.
// Others write a reference there, or (skopeo, crane, umoci) a bare tag, which
// names no repository: such an entry has no name, only a refName. They leave
// containerd's name as it was, so where the two differ the ref.name counts.
func entryName(containerd, refName string) (name, bare string) {
	if containerd != "" && containerd == refName {
		return containerd, refName
	}
	s := refName
	if containerd != "" && (refName == "" || strings.HasSuffix(containerd, ":"+refName)) {
		s = containerd
	}
	if !strings.ContainsAny(s, ":/@") {
		return "", refName
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return "", refName
	}
	return reference.TagNameOnly(named).String(), refName
}
