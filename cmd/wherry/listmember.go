package main

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// membersCalled are the manifests of d that somebody means by typed: the name that
// one was added by, its repository and digest, the name of the list that several came
// out of, the beginning of a digest, or a platform. Attestations are never meant, but
// by their digest.
func membersCalled(d *layout.Draft, typed string) []*layout.Member {
	var exact, from, digests, on []*layout.Member
	ref, refErr := registry.ParseReference(typed)
	want, platformErr := platform.Parse(typed)
	prefix := strings.TrimPrefix(typed, "sha256:")
	for i := range d.Members {
		m := &d.Members[i]
		image := !platform.IsAttestation(m.Descriptor)
		if refErr == nil && (m.Ref == ref.String() || isPinned(ref, m)) {
			exact = append(exact, m)
		}
		if refErr == nil && image && m.From == ref.String() {
			from = append(from, m)
		}
		if len(prefix) >= minPrefix && strings.HasPrefix(m.Descriptor.Digest.Hex, prefix) {
			digests = append(digests, m)
		}
		if p := m.Descriptor.Platform; platformErr == nil && image && p != nil && platform.Matches(want, *p) {
			on = append(on, m)
		}
	}
	for _, found := range [][]*layout.Member{exact[:min(1, len(exact))], from, digests, on} {
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// minPrefix is how much of a digest is enough to name a manifest of a list by.
const minPrefix = 6

// memberOf is the one manifest of d that typed means. command is what the list is
// worked on by, "manifest" or "index".
func memberOf(d *layout.Draft, typed, command string) (*layout.Member, error) {
	fit := membersCalled(d, typed)
	if len(fit) == 1 {
		return fit[0], nil
	}
	list, image := familiarRef(d.Name()), familiarRef(typed)
	if len(fit) > 1 {
		return nil, withHint(fmt.Errorf("%q stands for %d manifests in %s: name one by its digest", image, len(fit), list),
			"%s %s inspect %s", program, command, list)
	}
	if p, err := platform.Parse(typed); err == nil && platform.IsKnown(p.OS, p.Architecture) || isHex(typed) {
		return nil, noEntry(d, typed, command) // no name that could be added
	}
	return nil, noMember(d, typed, command)
}

// noEntry is the error for a digest or a platform that is not in d.
func noEntry(d *layout.Draft, typed, command string) error {
	list := familiarRef(d.Name())
	return withHint(fmt.Errorf("%s is not in %s", typed, list), "%s %s inspect %s", program, command, list)
}

// noMember is the error for a manifest that d does not have.
func noMember(d *layout.Draft, typed, command string) error {
	list, image := familiarRef(d.Name()), familiarRef(typed)
	amend := "create --amend"
	switch {
	case d.IsNew():
		amend = "create"
	case command == "index":
		amend = "add"
	}
	return withHint(fmt.Errorf("manifest for image %s does not exist in %s", image, list), "%s %s %s %s %s", program, command, amend, list, image)
}

// isPinned reports whether ref is m's repository and digest; a tag between them
// means nothing.
func isPinned(ref reference.Named, m *layout.Member) bool {
	pin, ok := ref.(reference.Digested)
	if !ok || pin.Digest().String() != m.Descriptor.Digest.String() {
		return false
	}
	named, err := reference.ParseNormalizedNamed(m.Ref)
	return err == nil && named.Name() == ref.Name()
}

// platformText is a platform of an index as people write it; it is "" where the index
// does not tell one.
func platformText(p *v1.Platform) string {
	if p == nil || p.OS == "" && p.Architecture == "" {
		return ""
	}
	return platform.Format(*p)
}
