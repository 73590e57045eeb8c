package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"

	"github.com/wherry-oci/wherry/registry"
)

// place is one end of a copy, as it is typed.
type place struct {
	typed   string
	kind    placeKind
	repo    reference.Named // in a registry: with its tag or digest, "latest" if there is none
	bare    bool            // ... which was not typed
	path    string          // of a layout or an archive
	ref     string          // in it, as it is typed; "" if none is
	isStore bool            // the layout is wherry's store
}

type placeKind int

const (
	inRegistry placeKind = iota
	inLayout
	inOCIArchive
	inDockerArchive
)

// parsePlace reads a name, or a transport and what belongs to it.
func (e *env) parsePlace(typed string) (place, error) {
	p := place{typed: typed}
	scheme, rest, _ := strings.Cut(typed, ":")
	switch scheme {
	case "oci", "oci-archive", "docker-archive":
		p.kind = map[string]placeKind{"oci": inLayout, "oci-archive": inOCIArchive, "docker-archive": inDockerArchive}[scheme]
		p.path, p.ref = cutPath(rest)
		if p.path == "" {
			return place{}, withHint(fmt.Errorf("%q names no file or folder", typed), "%s copy SRC %s:%s", program, scheme, "PATH")
		}
		return p, nil
	case "store":
		dir, err := e.storeDir()
		p.kind, p.isStore, p.path, p.ref = inLayout, true, dir, rest
		return p, err
	case "docker":
		if name, ok := strings.CutPrefix(rest, "//"); ok { // docker:dind is an image like others
			return p.inRegistry(name)
		}
	case "ocidir", "oci-dir":
		return place{}, withHint(fmt.Errorf("%q: a layout is spelled differently", typed), "%s copy oci:%s ...", program, strings.TrimPrefix(rest, "//"))
	case "containers-storage", "docker-daemon", "dir":
		return place{}, fmt.Errorf("%q: no %s: is known, but docker://, oci:, oci-archive:, docker-archive: and store:, and plain names", typed, scheme)
	}
	return p.inRegistry(typed)
}

func (p place) inRegistry(name string) (place, error) {
	ref, err := registry.ParseReference(name)
	if err != nil {
		if kind := kindOfFile(name); kind != "" {
			return place{}, withHint(err, "%s copy %s:%s ...", program, kind, name)
		}
		return place{}, err
	}
	written, err := reference.ParseNormalizedNamed(name)
	p.repo, p.bare = ref, err == nil && reference.IsNameOnly(written)
	return p, nil
}

// kindOfFile is the transport of a path that was typed as a name, if it is one.
func kindOfFile(name string) string {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return "oci"
	case err == nil, strings.HasSuffix(name, ".tar"):
		return "oci-archive"
	}
	return ""
}

// cutPath takes the reference behind a path off. One letter in front of the first
// colon is a drive of Windows.
func cutPath(s string) (path, ref string) {
	drive := ""
	if len(s) > 1 && s[1] == ':' && filepath.VolumeName(s) != "" {
		drive, s = s[:2], s[2:]
	}
	if path, digest, ok := strings.Cut(s, "@"); ok && strings.Contains(digest, ":") {
		return drive + path, "@" + digest
	}
	path, ref, _ = strings.Cut(s, ":")
	return drive + path, ref
}

// tagged is p with another tag.
func (p place) tagged(tag string) (place, error) {
	if p.kind != inRegistry {
		p.ref = tag
		return p, nil
	}
	ref, err := reference.WithTag(reference.TrimNamed(p.repo), tag)
	if err != nil {
		return place{}, fmt.Errorf("the tag %q: %w", tag, err)
	}
	p.repo, p.bare = ref, false
	return p, nil
}

// forTags checks that p is where several tags can be.
func (p place) forTags() error {
	switch {
	case p.kind == inRegistry && !p.bare:
		return &usageError{command: program + " copy", err: fmt.Errorf("%q is one image: with --tags and --all-tags SRC and DST are repositories", p.typed)}
	case p.kind != inRegistry && p.ref != "":
		return &usageError{command: program + " copy", err: fmt.Errorf("%q is one image: with --tags and --all-tags leave %q out", p.typed, p.ref)}
	}
	return nil
}

// String is the place as people type it.
func (p place) String() string {
	if p.kind == inRegistry {
		return reference.FamiliarString(p.repo)
	}
	return p.typed
}

// in is how an image of this name is typed that is in the layout or archive p.
func (p place) in(name string) string {
	if p.isStore {
		return name
	}
	scheme := map[placeKind]string{inLayout: "oci:", inOCIArchive: "oci-archive:", inDockerArchive: "docker-archive:"}[p.kind]
	if name == "" {
		return scheme + p.path
	}
	return scheme + p.path + ":" + name
}

// errNoTags: a pattern that fits nothing is a mistake more often than not.
var errNoTags = errors.New("no tag of it fits")
