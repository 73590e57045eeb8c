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

// remoteName reads the operand of pull and push, and returns what is to be told
// about how it was read. With allTags it must be a bare repository.
func remoteName(command, typed string, allTags bool) (ref reference.Named, notes []string, err error) {
	ref, err = registry.ParseReference(typed)
	if err != nil {
		return nil, nil, err
	}
	written, err := reference.ParseNormalizedNamed(typed)
	bare := err == nil && reference.IsNameOnly(written)
	switch {
	case allTags && !bare:
		return nil, nil, &usageError{command: program + " " + command, err: errors.New("tag can't be used with --all-tags/-a")}
	case allTags:
		return written, nil, nil
	case bare:
		notes = []string{"Using default tag: latest"}
	}
	return ref, notes, nil
}
