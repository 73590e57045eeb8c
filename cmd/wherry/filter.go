package main

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/wherry-oci/wherry/layout"
)

// imageFilter is what images is asked to show: conditions of different kinds
// must all hold, of several references one.
type imageFilter struct {
	dangling      *bool // nil: both
	references    []string
	labels        []string
	before, since time.Time // zero: any
}

func newImageFilter(store *layout.Store, o imagesOptions) (*imageFilter, error) {
	f := &imageFilter{}
	if !o.All {
		f.dangling = new(bool)
	}
	if o.Match != "" {
		f.references = []string{o.Match}
	}
	for _, condition := range o.Filters {
		if err := f.add(store, condition); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// add reads one KEY=VALUE of --filter.
func (f *imageFilter) add(store *layout.Store, condition string) error {
	key, value, ok := strings.Cut(condition, "=")
	if !ok || value == "" {
		return badFilter("invalid filter %q: want KEY=VALUE", condition)
	}
	switch key {
	case "dangling":
		b, err := strconv.ParseBool(value)
		if err != nil {
			return badFilter("invalid filter %q: want dangling=true or dangling=false", condition)
		}
		f.dangling = &b
	case "label":
		f.labels = append(f.labels, value)
	case "reference":
		if _, err := matchReference(value, "a:b"); err != nil {
			return badFilter("invalid filter %q: it is no pattern", condition)
		}
		f.references = append(f.references, value)
	case "before", "since":
		found, err := store.Find(value)
		if err != nil {
			return concerning("images", value, err)
		}
		if key == "before" {
			f.before = found[0].Created()
		} else {
			f.since = found[0].Created()
		}
	default:
		return badFilter("unknown filter %q: there are dangling, label, before, since and reference", key)
	}
	return nil
}

func badFilter(format string, args ...any) error {
	return &usageError{command: program + " images", err: fmt.Errorf(format, args...)}
}

func (f *imageFilter) match(img listedImage) (bool, error) {
	switch {
	case f.dangling != nil && *f.dangling != (img.Name() == ""):
		return false, nil
	case !f.before.IsZero() && !img.created.Before(f.before):
		return false, nil
	case !f.since.IsZero() && !img.created.After(f.since):
		return false, nil
	case !f.matchName(img.Name()):
		return false, nil
	}
	return f.matchLabels(img.Image)
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

func (f *imageFilter) matchLabels(img *layout.Image) (bool, error) {
	if len(f.labels) == 0 {
		return true, nil
	}
	one, err := img.Best()
	if err != nil {
		return false, err
	}
	config, err := one.Config()
	if err != nil {
		return false, err
	}
	for _, label := range f.labels {
		key, want, valued := strings.Cut(label, "=")
		have, ok := config.Config.Labels[key]
		if !ok || valued && have != want {
			return false, nil
		}
	}
	return true, nil
}
