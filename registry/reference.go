package registry

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxReference bounds what is even looked at as a reference: a name of 255
// characters, a tag of 128 and a SHA-512 digest fit well.
const maxReference = 1024

// ReferenceError says why something that was typed is no name of an image.
type ReferenceError struct {
	Input string // what was typed, raw
	Why   string // fit for a terminal
}

func (e *ReferenceError) Error() string {
	input := e.Input
	if len(input) > maxMessage {
		input = input[:maxMessage] + "…"
	}
	return fmt.Sprintf("invalid image name %q: %s", input, e.Why)
}

// ParseReference reads a name as docker does: "alpine" is
// "docker.io/library/alpine:latest". The tag is "latest" unless a tag or a
// digest is given; a tag beside a digest is kept but means nothing, as the
// digest decides. The error is a [*ReferenceError].
//
// The grammar is https://pkg.go.dev/github.com/distribution/reference.
func ParseReference(s string) (reference.Named, error) {
	if len(s) > maxReference {
		return nil, &ReferenceError{s, fmt.Sprintf("it has %d characters", len(s))}
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, &ReferenceError{s, reasonFor(s)}
	}
	if d, ok := named.(reference.Digested); ok {
		if _, err := v1.NewHash(d.Digest().String()); err != nil {
			return nil, &ReferenceError{s, fmt.Sprintf("digests of type %s are not supported", d.Digest().Algorithm())}
		}
	}
	return reference.TagNameOnly(named), nil
}

// reasonFor s being no reference, which the grammar itself cannot tell.
func reasonFor(s string) string {
	name, tag, digest := splitReference(s)
	scheme, rest, isURL := strings.Cut(s, "://")
	switch {
	case s == "":
		return "it is empty"
	case isURL:
		return fmt.Sprintf("leave out %q, write %q", scheme+"://", rest)
	case strings.ContainsAny(s, " \t\r\n"):
		return "it has white space in it"
	case strings.HasPrefix(s, "-"):
		return "it begins with a dash"
	case regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(s):
		return "64 hex digits are the ID of an image, not a name"
	case name == "":
		return "there is no name in front of the tag or digest"
	case digest != "" && isName(name):
		return fmt.Sprintf("digest %q is not complete: sha256 has 64 hex digits", digest)
	case tag != "" && isName(name):
		return fmt.Sprintf("tag %q has characters that tags cannot have, or more than 128", tag)
	case isName(name):
		return "its tag or digest is empty"
	case isName(strings.ToLower(name)):
		return fmt.Sprintf("repository names are lower case: %q", strings.ToLower(name)+s[len(name):])
	case len(name) > reference.RepositoryNameTotalLengthMax:
		return fmt.Sprintf("the repository name has %d characters, more than %d", len(name), reference.RepositoryNameTotalLengthMax)
	}
	return "want [HOST[:PORT]/]NAME[:TAG][@DIGEST]"
}

// splitReference cuts s where a tag and a digest would begin.
func splitReference(s string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	return name, tag, digest
}

func isName(s string) bool {
	named, err := reference.ParseNormalizedNamed(s)
	return err == nil && reference.IsNameOnly(named)
}
