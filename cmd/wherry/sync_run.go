package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// maxSyncRepositories bounds what a registry says it has.
const maxSyncRepositories = 100_000

// syncRun is one sync.
type syncRun struct {
	*copier
	jobs   int
	images []*syncImage

	mu       sync.Mutex
	failures []syncFailure
	open     []copySource
}

// syncImage is one image of a list.
type syncImage struct {
	copier *copier // with the platforms of its entry
	job    copyJob
	there  arrived // if it was there before
	done   arrived
	failed bool
}

type syncFailure struct {
	name string
	err  error
}

func (i *syncImage) to() string { return familiarString(i.job.name()) }

func (s *syncRun) fail(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, syncFailure{name, err})
}

func (s *syncRun) close() {
	for _, source := range s.open {
		_ = source.Close() // those of registries keep nothing
	}
}

// plan finds out which images the entries mean, and which of them are there.
func (s *syncRun) plan(ctx context.Context, entries []syncEntry) {
	expanded := make([][]*syncImage, len(entries))
	s.each(len(entries), func(i int) {
		var err error
		if expanded[i], err = s.expand(ctx, &entries[i]); err != nil {
			s.fail(fmt.Sprintf("line %d: %s", entries[i].line, entries[i].from), err)
		}
	})
	from := map[string]string{}
	for _, img := range slices.Concat(expanded...) {
		to, source := img.job.name(), img.job.from.repo.String()
		switch before, taken := from[to]; {
		case !taken:
			from[to] = source
			s.images = append(s.images, img)
		case before != source:
			s.fail(source, fmt.Errorf("%s goes to %s already", familiarString(before), familiarString(to)))
		}
	}
	s.each(len(s.images), func(i int) {
		img := s.images[i]
		var err error
		if img.there, err = img.copier.there(ctx, img.job); err != nil {
			img.failed = true
			s.fail(img.to(), err)
		}
	})
}

// each does something to many at once. What fails is noted, and stops nothing.
func (s *syncRun) each(n int, do func(i int)) {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = g.Wait()
}

// expand finds the images of one entry.
func (s *syncRun) expand(ctx context.Context, e *syncEntry) ([]*syncImage, error) {
	c := *s.copier
	c.all = e.all
	var err error
	if c.platforms, err = platform.ParseAll(e.platforms); err != nil {
		return nil, err
	}
	if e.repos == nil {
		return s.expandOne(ctx, &c, e, e.from)
	}
	names, err := s.repositories(ctx, e)
	if err != nil {
		return nil, err
	}
	var images []*syncImage
	for _, name := range names {
		more, err := s.expandOne(ctx, &c, e, name)
		if err != nil && !errors.Is(err, errNoTags) {
			s.fail(name, err)
		}
		images = append(images, more...)
	}
	return images, nil
}

// repositories of a registry that fit.
func (s *syncRun) repositories(ctx context.Context, e *syncEntry) ([]string, error) {
	if e.from == dockerHub {
		return nil, errors.New("the repositories of Docker Hub are not listed: name them")
	}
	found, err := s.client.Search(ctx, e.from, "", maxSyncRepositories)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, one := range found {
		if e.repos(strings.TrimPrefix(one.Name, e.from+"/")) {
			names = append(names, one.Name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no repository fits")
	}
	return names, nil
}

// expandOne finds the images of one repository.
func (s *syncRun) expandOne(ctx context.Context, c *copier, e *syncEntry, name string) ([]*syncImage, error) {
	from, err := s.env.parsePlace(name)
	if err != nil {
		return nil, err
	}
	if from.kind != inRegistry {
		return nil, errors.New("sync copies from registries")
	}
	to, err := e.target(s.env, from.repo)
	if err != nil {
		return nil, err
	}
	job := copyJob{from: from, to: to, target: c.openTarget(to)}
	if job.source, err = c.openSource(ctx, from); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.open = append(s.open, job.source)
	s.mu.Unlock()
	ids, err := e.ids(ctx, from, job.source)
	if err != nil {
		return nil, err
	}
	images := make([]*syncImage, len(ids))
	for i, id := range ids {
		one := job
		if one.from, err = from.identified(id); err != nil {
			return nil, err
		}
		if to.kind == inRegistry && (to.bare || len(ids) > 1 || e.tags != nil) {
			if one.to, err = to.identified(id); err != nil {
				return nil, err
			}
		}
		if one.source, err = c.openSource(ctx, one.from); err != nil {
			return nil, err
		}
		images[i] = &syncImage{copier: c, job: one}
	}
	return images, nil
}

// ids are the tags and digests that an entry asks for.
func (e *syncEntry) ids(ctx context.Context, from place, source copySource) ([]string, error) {
	switch {
	case e.tags == nil && e.exactly == nil:
		return []string{tagOrDigest(from.repo)}, nil
	case !from.bare:
		return nil, fmt.Errorf("%q is one image: tags are those of a repository", from)
	case e.exactly != nil:
		return e.exactly, nil
	}
	tags, err := source.Tags(ctx)
	if err != nil {
		return nil, err
	}
	if tags = e.withTags(tags); len(tags) == 0 {
		return nil, errNoTags
	}
	return tags, nil
}

// identified is p with another tag or digest.
func (p place) identified(id string) (place, error) {
	if !strings.Contains(id, ":") {
		return p.tagged(id)
	}
	ref, err := registry.ParseReference(p.repo.Name() + "@" + id)
	p.repo, p.bare = ref, false
	return p, err
}

// copyAll copies what is not there. Into one repository images go one after the
// other, so that what several of them have is moved once.
func (s *syncRun) copyAll(ctx context.Context) {
	var order []string
	groups := map[string][]*syncImage{}
	for _, img := range s.images {
		if img.failed || img.there.digest.Hex != "" && !img.copier.all {
			continue
		}
		key := img.job.to.path
		if img.job.to.kind == inRegistry {
			key = reference.TrimNamed(img.job.to.repo).String()
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], img)
	}
	var g errgroup.Group
	g.SetLimit(s.jobs)
	for _, key := range order {
		g.Go(func() error {
			for _, img := range groups[key] {
				s.copyOne(ctx, img)
			}
			return nil
		})
	}
	_ = g.Wait()
}

func (s *syncRun) copyOne(ctx context.Context, img *syncImage) {
	if ctx.Err() != nil {
		return
	}
	done, err := img.copier.bring(ctx, img.job, img.there)
	word := "copied"
	switch {
	case err != nil:
		img.failed = true
		s.fail(img.to(), err)
		word = "failed"
	case !done.moved:
		img.there = done
		return
	default:
		img.done = done
	}
	if !s.quiet {
		s.env.say("%s: %s", img.to(), word)
	}
}

// tell says what a run would copy.
func (s *syncRun) tell(ctx context.Context) error {
	lacking := make([]bool, len(s.images))
	s.each(len(s.images), func(i int) {
		img := s.images[i]
		if img.failed {
			return
		}
		var err error
		if lacking[i], err = img.lacking(ctx); err != nil {
			img.failed = true
			s.fail(img.to(), err)
		}
	})
	n := 0
	for i, img := range s.images {
		if lacking[i] {
			n++
			fmt.Fprintf(&s.env.Out, "%s -> %s\n", img.job.from, img.to())
		}
	}
	if !s.quiet {
		s.env.say("%d of %d images would be copied", n, len(s.images))
	}
	return s.failure(ctx)
}

// lacking reports whether the destination lacks the image, or something that
// refers to it and should be there, too.
func (i *syncImage) lacking(ctx context.Context) (bool, error) {
	known := i.there.digest.Hex != ""
	if known && !i.copier.all || !known && i.copier.asked(i.job) {
		return !known, nil
	}
	img, err := i.job.source.Find(ctx, "")
	if err != nil {
		return false, err
	}
	img.Source, err = onlyPlatforms(ctx, img.Source, i.copier.platforms)
	if err != nil || !known && !i.job.target.Has(ctx, img.name, i.job.to, img.Descriptor().Digest) {
		return true, err
	}
	if !i.copier.all {
		return false, nil
	}
	return i.lacksReferrers(ctx, img)
}

// lacksReferrers reports whether the destination lists less of what refers to the
// image than there is.
func (i *syncImage) lacksReferrers(ctx context.Context, img *copied) (bool, error) {
	found, documents, err := registry.Referrals(ctx, img.Source, img.around)
	if err != nil {
		return false, err
	}
	there, err := i.copier.openSource(ctx, i.job.to)
	if err != nil {
		return false, err
	}
	lists := map[v1.Hash][]v1.Descriptor{}
	for _, r := range found {
		if _, asked := lists[r.Subject]; !asked {
			if lists[r.Subject], err = there.Referrers(ctx, r.Subject); err != nil {
				return false, err
			}
		}
		if !slices.ContainsFunc(lists[r.Subject], func(d v1.Descriptor) bool { return d.Digest == r.Referrer.Digest }) {
			return true, nil
		}
	}
	signed, err := digestTags(ctx, img, documents)
	if err != nil || len(signed) == 0 {
		return false, err
	}
	tags, err := there.Tags(ctx)
	return slices.ContainsFunc(signed, func(tag string) bool { return !slices.Contains(tags, tag) }), err
}

// summary says what was done, and what not.
func (s *syncRun) summary(ctx context.Context) error {
	copied, there := 0, 0
	for _, img := range s.images {
		switch {
		case img.failed:
		case img.done.moved:
			copied++
			fmt.Fprintln(&s.env.Out, img.done)
		case img.there.digest.Hex != "":
			there++
		}
	}
	if !s.quiet && ctx.Err() == nil {
		s.env.say("%d copied, %d up to date, %d failed", copied, there, len(s.failures))
	}
	return s.failure(ctx)
}

// failure names each, and is an error if there are any.
func (s *syncRun) failure(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch len(s.failures) {
	case 0:
		return nil
	case 1:
		f := s.failures[0]
		return concerning("sync", f.name, fmt.Errorf("%s: %w", f.name, f.err))
	}
	for _, f := range s.failures {
		s.env.say("failed: %s: %s", printable(f.name), printable(f.err.Error()))
	}
	return fmt.Errorf("%d images were not copied", len(s.failures))
}
