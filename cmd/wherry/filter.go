package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/wherry-oci/wherry/layout"
)

// imageFilter is what a command was asked to show or to remove: conditions of
// different kinds must all hold, of several references one.
type imageFilter struct {
	dangling             *bool // nil: both
	references           []string
	labels               []labelCondition
	before, since, until time.Time // zero: any
}

// labelCondition is label=KEY, label=KEY=VALUE, or label! for the opposite.
type labelCondition struct {
	key, value string
	valued     bool
	not        bool
}

func (c labelCondition) holds(labels map[string]string) bool {
	have, ok := labels[c.key]
	return (ok && (!c.valued || have == c.value)) != c.not
}

// filterReader reads the conditions of one command.
type filterReader struct {
	command string // "wherry images"
	keys    []string
	now     time.Time
	find    func(ref string) ([]*layout.Image, error)
}

// listFilters are the keys of images, pruneFilters those of image prune.
func listFilters() []string {
	return []string{"before", "dangling", "label", "label!", "reference", "since", "until"}
}

func pruneFilters() []string { return []string{"label", "label!", "until"} }

func (r filterReader) read(conditions []string) (*imageFilter, error) {
	f := &imageFilter{}
	for _, condition := range conditions {
		if err := r.add(f, condition); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// add reads one KEY=VALUE of --filter.
func (r filterReader) add(f *imageFilter, condition string) error {
	key, value, ok := strings.Cut(condition, "=")
	key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
	if !ok || value == "" {
		return r.bad("invalid filter %q: want KEY=VALUE", condition)
	}
	if !slices.Contains(r.keys, key) {
		return r.bad("unknown filter %q: there are %s", key, wordList(r.keys))
	}
	switch key {
	case "dangling":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return r.bad("invalid filter %q: want dangling=true or dangling=false", condition)
		}
		f.dangling = &b
	case "label", "label!":
		c := labelCondition{not: key == "label!"}
		c.key, c.value, c.valued = strings.Cut(value, "=")
		f.labels = append(f.labels, c)
	case "reference":
		if _, err := matchReference(value, "a:b"); err != nil {
			return r.bad("invalid filter %q: it is no pattern", condition)
		}
		f.references = append(f.references, value)
	case "before":
		at, err := r.created(value)
		f.before = earlier(f.before, at)
		return err
	case "since":
		at, err := r.created(value)
		if at.After(f.since) {
			f.since = at
		}
		return err
	case "until":
		at, ok := parseMoment(value, r.now)
		if !ok {
			return r.bad("invalid filter %q: want until=24h, until=2026-01-31 or until=2026-01-31T12:00:00", condition)
		}
		f.until = earlier(f.until, at)
	}
	return nil
}

// earlier is the bound that is met by who meets both; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// created is when the image ref was made.
func (r filterReader) created(ref string) (time.Time, error) {
	found, err := r.find(ref)
	if err != nil {
		return time.Time{}, concerning("images", ref, err)
	}
	return found[0].Created(), nil
}

func (r filterReader) bad(format string, args ...any) error {
	return &usageError{command: r.command, err: fmt.Errorf(format, args...)}
}

// wordList is "a, b and c".
func wordList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// listedImage keeps the time that filter, order and row need.
type listedImage struct {
	*layout.Image
	created time.Time
}

// choose returns the images for which every condition holds. About those whose
// labels can't be read, though they are asked for, it tells unread.
func (f *imageFilter) choose(ctx context.Context, store *layout.Store, images []*layout.Image, unread func(*layout.Image, error)) ([]listedImage, error) {
	var chosen []listedImage
	for _, img := range images {
		if one := (listedImage{img, img.Created()}); f.match(one) {
			chosen = append(chosen, one)
		}
	}
	if len(f.labels) == 0 {
		return chosen, nil
	}
	asked := make([]*layout.Image, len(chosen))
	for i, one := range chosen {
		asked[i] = one.Image
	}
	labels, err := store.LabelsOf(ctx, asked)
	if err != nil {
		return nil, err
	}
	var labelled []listedImage
	for i, one := range chosen {
		switch err := labels[i].Err; {
		case errors.Is(err, fs.ErrNotExist): // no config here: neither with the label nor without
		case err != nil:
			unread(one.Image, err)
		case f.matchLabels(labels[i].Labels):
			labelled = append(labelled, one)
		}
	}
	return labelled, nil
}

// match looks at all conditions but labels. An image without a date is never
// older than something.
func (f *imageFilter) match(img listedImage) bool {
	switch {
	case f.dangling != nil && *f.dangling != (img.Name() == ""):
		return false
	case !f.before.IsZero() && !img.created.Before(f.before):
		return false
	case !f.since.IsZero() && !img.created.After(f.since):
		return false
	case !f.until.IsZero() && (img.created.IsZero() || !img.created.Before(f.until)):
		return false
	}
	return f.matchName(img.Name())
}

func (f *imageFilter) matchName(full string) bool {
	if len(f.references) == 0 {
		return true
	}
	for _, pattern := range f.references {
		if ok, err := matchReference(pattern, full); err == nil && ok {
			return true
		}
	}
	return false
}

func (f *imageFilter) matchLabels(labels map[string]string) bool {
	return !slices.ContainsFunc(f.labels, func(c labelCondition) bool { return !c.holds(labels) })
}

// matchReference says whether a full name is meant by REPOSITORY[:TAG], each part
// of which may be a pattern: by the name people type, or by the whole one.
func matchReference(pattern, full string) (bool, error) {
	repo, tag, digest := splitName(full)
	for _, name := range []string{repo, familiarString(full)} {
		if ok, err := path.Match(pattern, name); ok || err != nil {
			return ok, err
		}
	}
	// A pattern that is a name may be written otherwise: docker.io/library/alpine.
	if wanted, err := reference.ParseNormalizedNamed(pattern); err == nil {
		wantRepo, wantTag, wantDigest := splitName(wanted.String())
		return wantRepo == repo && (wantTag == "" || wantTag == tag) && (wantDigest == "" || wantDigest == digest), nil
	}
	return false, nil
}
