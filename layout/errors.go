package layout

import (
	"fmt"
	"io/fs"
	"strings"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// NotFoundError says that nothing in the store answers to Ref.
type NotFoundError struct {
	Ref string // as it was asked for
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("no such image: %q", e.Ref) }

// AmbiguousError says that Ref, a prefix of an ID, fits more than one image.
type AmbiguousError struct {
	Ref string
	IDs []v1.Hash // what it fits, at least two, in index.json's order
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q is the beginning of %d image IDs", e.Ref, len(e.IDs))
}

// InUseError says that an image was to be removed by its ID though it has
// several names, or is part of an index that is named.
type InUseError struct {
	Ref   string
	Names []string // full names; "" for an untagged entry
	Part  bool     // Ref is a manifest below an index that these names point at
}

func (e *InUseError) Error() string {
	names := strings.Join(e.Names, ", ")
	if e.Part {
		return fmt.Sprintf("%q is a part of %s", e.Ref, names)
	}
	return fmt.Sprintf("%q has several names: %s", e.Ref, names)
}

// SharedError says that content for a platform was to be removed that other
// names stand for too.
type SharedError struct {
	Ref      string
	Platform v1.Platform
	Names    []string // full names, or IDs of untagged entries
	Whole    bool     // to one of these it is all they have: force doesn't help
}

func (e *SharedError) Error() string {
	return fmt.Sprintf("the content of %q for %s belongs to %s too", e.Ref, platform.Format(e.Platform), strings.Join(e.Names, ", "))
}

// DigestError says that a blob is not what its descriptor announces.
type DigestError struct {
	Digest v1.Hash // announced
	Size   int64   // announced, in bytes
	Got    v1.Hash // found; the zero Hash if the size was wrong already
	Bytes  int64   // found; more than Size means "at least this many"
}

func (e *DigestError) Error() string {
	if e.Got == (v1.Hash{}) {
		return fmt.Sprintf("blob %s has the wrong size: want %d bytes, got %d", e.Digest, e.Size, e.Bytes)
	}
	return fmt.Sprintf("blob %s has the wrong digest: got %s", e.Digest, e.Got)
}

// MissingError says that a blob is not there. It is an [fs.ErrNotExist].
type MissingError struct {
	Digest v1.Hash
}

func (e *MissingError) Error() string { return fmt.Sprintf("blob %s is missing", e.Digest) }

// Is makes errors.Is(err, fs.ErrNotExist) hold.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// InvalidError says that something others wrote breaks the rules of its format,
// or a bound of this package.
type InvalidError struct {
	What   string // as "manifest sha256:…", "archive", "index.json"
	Reason string
	Err    error // the parser's own words; may be nil
}

func (e *InvalidError) Error() string {
	s := e.What + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return strings.Map(printable, s) // parsers repeat what they read
}

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return unicode.ReplacementChar
	}
	return r
}

func (e *InvalidError) Unwrap() error { return e.Err }

func invalid(what any, reason string, args ...any) error {
	return &InvalidError{What: fmt.Sprint(what), Reason: fmt.Sprintf(reason, args...)}
}

// WriteError is a failure of the writer that an archive went to, not of the store.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }

func (e *WriteError) Unwrap() error { return e.Err }
