package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// copySource is where a copy comes from.
type copySource interface {
	registry.Surroundings
	// Tags lists those of the repository, or of the layout.
	Tags(ctx context.Context) ([]string, error)
	// Find returns what a tag stands for, or for "" what the source itself names.
	Find(ctx context.Context, tag string) (*copied, error)
	// Close ends the source, and takes away what it kept on the disk.
	Close() error
}

// copied is an image on its way.
type copied struct {
	registry.Source
	name   string // full normalised; "" if it has none
	ref    string // then what a layout calls it
	around copySource
}

// openSource makes the source at p ready. Nothing but an archive is read yet.
func (c *copier) openSource(ctx context.Context, p place) (copySource, error) {
	switch p.kind {
	case inRegistry:
		r := &registrySource{client: c.client, ref: p.repo}
		r.list = sync.OnceValues(func() ([]string, error) { return c.client.Tags(ctx, p.repo) })
		return r, nil
	case inLayout:
		if _, err := os.Stat(filepath.Join(p.path, "oci-layout")); err != nil && !p.isStore {
			return nil, notALayout(p.path, err)
		}
		store, err := layout.Open(p.path)
		return &layoutSource{store: store, ref: p.ref}, err
	}
	return c.openArchive(ctx, p)
}

func notALayout(path string, err error) error {
	if info, statErr := os.Stat(path); statErr == nil && !info.IsDir() {
		return withHint(fmt.Errorf("%q is a file, not an image layout", path), "%s copy oci-archive:%s ...", program, path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q is no image layout: it has no file oci-layout", path)
	}
	return err
}

// registrySource is a repository.
type registrySource struct {
	client *registry.Client
	ref    reference.Named
	list   func() ([]string, error)
}

// Referrers implements [registry.Surroundings].
func (r *registrySource) Referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	return r.client.Referrers(ctx, r.ref, subject)
}

// Tags implements [copySource].
func (r *registrySource) Tags(context.Context) ([]string, error) { return r.list() }

// Find implements [copySource].
func (r *registrySource) Find(ctx context.Context, tag string) (*copied, error) {
	ref := r.ref
	if tag != "" {
		tagged, err := reference.WithTag(reference.TrimNamed(r.ref), tag)
		if err != nil {
			return nil, fmt.Errorf("the registry lists the tag %q: %w", tag, err)
		}
		ref = tagged
	}
	img, err := r.client.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &copied{Source: img, name: ref.String(), around: r}, nil
}

// Close implements [copySource].
func (r *registrySource) Close() error { return nil }

// layoutSource is a layout, or an archive that was unpacked into one.
type layoutSource struct {
	store *layout.Store
	ref   string
	repo  string // full normalised name that signatures are looked for in; "": anywhere
	close func() error
}

// Referrers implements [registry.Surroundings].
func (l *layoutSource) Referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	return l.store.Referrers(ctx, l.repo, subject)
}

// Tags implements [copySource].
func (l *layoutSource) Tags(context.Context) ([]string, error) {
	tags, err := l.store.Tags(l.repo)
	var names []string
	for tag := range tags {
		names = append(names, tag)
	}
	slices.Sort(names)
	return names, err
}

// Find implements [copySource].
func (l *layoutSource) Find(ctx context.Context, tag string) (*copied, error) {
	img, err := l.find(ctx, tag)
	if err != nil {
		return nil, err
	}
	around := *l
	if named, err := reference.ParseNormalizedNamed(img.Name()); err == nil {
		around.repo = named.Name()
	}
	c := &copied{Source: img, name: img.Name(), around: &around}
	if c.name == "" {
		c.ref = img.RefName()
	}
	return c, nil
}

func (l *layoutSource) find(ctx context.Context, tag string) (*layout.Image, error) {
	if tag != "" {
		tags, err := l.store.Tags(l.repo)
		if err == nil && tags[tag] == nil {
			err = &layout.NotFoundError{Ref: tag}
		}
		return tags[tag], err
	}
	all, err := l.store.List()
	if err != nil {
		return nil, err
	}
	if l.ref == "" {
		return onlyImage(all)
	}
	ref := strings.TrimPrefix(l.ref, "@")
	if found := slices.IndexFunc(all, func(i *layout.Image) bool { return i.RefName() == ref }); found >= 0 {
		return all[found], nil
	}
	found, err := l.store.FindAmong(ctx, all, ref)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// onlyImage is the one that is meant where none is named.
func onlyImage(all []*layout.Image) (*layout.Image, error) {
	images := slices.DeleteFunc(slices.Clone(all), func(i *layout.Image) bool {
		_, tag, _ := splitName(firstOf(i.Name(), ":"+i.RefName()))
		_, refers := registry.IsReferrersTag(tag)
		return refers
	})
	digests := map[v1.Hash]bool{}
	for _, i := range images {
		digests[i.Descriptor().Digest] = true
	}
	switch {
	case len(images) == 0:
		return nil, errors.New("there is no image in it")
	case len(digests) > 1:
		return nil, fmt.Errorf("there are %d images in it: name one, as in %q", len(digests), "oci:DIR:"+firstOf(familiarString(images[0].Name()), images[0].RefName(), "REF"))
	}
	return images[0], nil
}

// Close implements [copySource].
func (l *layoutSource) Close() error {
	if l.close == nil {
		return nil
	}
	return l.close()
}

// openArchive unpacks an archive into a layout of its own: its blobs may be in any
// order, compressed together, or under other names than their digests.
func (c *copier) openArchive(ctx context.Context, p place) (_ copySource, err error) {
	f, err := os.Open(p.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dir, err := os.MkdirTemp("", program+"-copy-")
	if err != nil {
		return nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	store, err := layout.Open(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	if _, err := store.Load(ctx, untilInterrupted(ctx, f), layout.LoadOptions{RefNames: true}); err != nil {
		if e, ok := errors.AsType[*layout.InvalidError](err); ok && e.What == "archive" {
			e.What = strconv.Quote(p.path)
		}
		return nil, err
	}
	return &layoutSource{store: store, ref: p.ref, close: remove}, nil
}
