package main

import (
	"errors"
	"strings"

	"github.com/distribution/reference"

	"github.com/wherry-oci/wherry/registry"
)

// none stands in docker's tables for what there is not.
const none = "<none>"

// splitName takes a normalised full name apart as docker's tables show it:
// "docker.io/library/alpine:3.20" is alpine, 3.20. It is written with plain cuts,
// because a store may have thousands of names and all of them are normalised.
func splitName(full string) (repo, tag, digest string) {
	repo = full
	if name, d, ok := strings.Cut(repo, "@"); ok {
		repo, digest = name, d
	}
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		repo, tag = repo[:i], repo[i+1:]
	}
	if short, ok := strings.CutPrefix(repo, "docker.io/"); ok {
		repo = short
		if official, ok := strings.CutPrefix(short, "library/"); ok && !strings.Contains(official, "/") {
			repo = official
		}
	}
	return repo, tag, digest
}

// familiarString is a normalised full name as people type it.
func familiarString(full string) string {
	repo, tag, digest := splitName(full)
	if tag != "" {
		repo += ":" + tag
	}
	if digest != "" {
		repo += "@" + digest
	}
	return repo
}

// shortID is the twelve digits of a digest that docker shows.
func shortID(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		hex = digest
	}
	return hex[:min(12, len(hex))]
}

// remoteName reads the operand of pull and push. With allTags it must be a bare
// repository.
func (e *env) remoteName(typed string, allTags, quiet bool) (reference.Named, error) {
	ref, err := registry.ParseReference(typed)
	if err != nil {
		return nil, err
	}
	bare := reference.TrimNamed(ref)
	if written, err := reference.ParseNormalizedNamed(typed); err != nil || !reference.IsNameOnly(written) {
		if allTags {
			return nil, &usageError{command: program + " pull", err: errors.New("tag can't be used with --all-tags/-a")}
		}
		return ref, nil
	}
	if allTags {
		return bare, nil
	}
	if !quiet {
		e.say("Using default tag: latest")
	}
	return ref, nil
}
