package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// maxReference bounds what is even looked at as a reference: a name of 255
// characters, a tag of 128 and a SHA-512 digest fit well.
const maxReference = 1024

// ParseReference reads a name as docker does: "alpine" is
// "docker.io/library/alpine:latest". The tag is "latest" unless a tag or a
// digest is given; a tag beside a digest is kept but means nothing, as the
// digest decides. The error says what is wrong with s and quotes it, so that
// nothing in it reaches a terminal raw.
func ParseReference(s string) (reference.Named, error) {
	if err := checkReference(s); err != nil {
		return nil, err
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, explainReference(s, err)
	}
	return reference.TagNameOnly(named), nil
}

// checkReference catches what people type that the grammar would only call an
// invalid format.
func checkReference(s string) error {
	switch {
	case s == "":
		return errors.New("empty image name")
	case len(s) > maxReference:
		return fmt.Errorf("image name %q… is too long: it has %d bytes", s[:32], len(s))
	case strings.Contains(s, "://"):
		scheme, rest, _ := strings.Cut(s, "://")
		return fmt.Errorf("invalid image name %q: leave out %q, write %q", s, scheme+"://", rest)
	case strings.ContainsAny(s, " \t\r\n"):
		return fmt.Errorf("invalid image name %q: it contains white space", s)
	}
	return nil
}

func explainReference(s string, err error) error {
	why := "want [HOST[:PORT]/]NAME[:TAG][@DIGEST]"
	switch {
	case errors.Is(err, reference.ErrNameTooLong):
		why = fmt.Sprintf("a repository name has at most %d characters", reference.RepositoryNameTotalLengthMax)
	}
	return fmt.Errorf("invalid image name %q: %s", s, why)
}
