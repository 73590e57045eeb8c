package main

import (
	"context"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/registry"
)

// copyJob is one image, or a repository of them, and where it goes.
type copyJob struct {
	source copySource
	from   place
	tag    string // of what source has; "": the one that from names
	target copyTarget
	to     place
}

// arrived is an image that is where it was to go.
type arrived struct {
	name   string // there
	digest v1.Hash
	moved  bool // it, or something that refers to it, was not there before
}

// String is the name with the digest.
func (a arrived) String() string {
	if strings.HasSuffix(a.name, "@"+a.digest.String()) {
		return familiarString(a.name)
	}
	return familiarString(a.name) + "@" + a.digest.String()
}

// one copies a single image.
func (c *copier) one(ctx context.Context, j copyJob) (arrived, error) {
	there, err := c.there(ctx, j)
	if err != nil || there.digest.Hex != "" && !c.all {
		return there, err
	}
	return c.bring(ctx, j, there)
}

// bring copies an image of which it is known whether it is there.
func (c *copier) bring(ctx context.Context, j copyJob, there arrived) (arrived, error) {
	img, err := j.source.Find(ctx, j.tag)
	if err != nil {
		return arrived{}, err
	}
	reduced, err := onlyPlatforms(ctx, img.Source, c.platforms)
	if err != nil {
		return arrived{}, err
	}
	was, digest := img.Descriptor(), reduced.Descriptor().Digest
	known := there.digest == digest
	if !known && !c.asked(j) {
		known = j.target.Has(ctx, img.name, j.to, digest)
	}
	img.Source = c.limited(reduced)
	name, more, err := j.target.Put(ctx, img, j.to)
	if err != nil {
		return arrived{}, err
	}
	if !known {
		c.sayReduced(was, digest, j.to.String())
		c.sayLeft(ctx, img, digest)
	}
	return arrived{name: name, digest: digest, moved: !known || more}, nil
}

// there is the image if it is where it is to go already, and the zero arrived if
// not: one question to each side, and none that counts as a pull.
func (c *copier) there(ctx context.Context, j copyJob) (arrived, error) {
	if !c.asked(j) {
		return arrived{}, nil
	}
	d, err := c.client.Head(ctx, j.from.repo)
	if err != nil || !j.target.Has(ctx, j.from.repo.String(), j.to, d.Digest) {
		return arrived{}, err
	}
	if !c.all {
		c.sayThere(j.to)
	}
	return arrived{name: j.name(), digest: d.Digest}, nil
}

// asked reports whether both sides of j can be asked for a digest, and would have
// the same.
func (c *copier) asked(j copyJob) bool { return j.from.kind == inRegistry && len(c.platforms) == 0 }

// name is how the image is called where it goes.
func (j copyJob) name() string {
	if j.to.kind == inRegistry {
		return j.to.repo.String()
	}
	return j.to.in(firstOf(j.to.ref, j.from.repo.String()))
}

func (c *copier) sayThere(to place) {
	if !c.quiet && !c.many {
		c.env.say("%s is up to date", to)
	}
}

// sayLeft tells once what would have gone along with --all. What can't be found
// out is no reason to fail.
func (c *copier) sayLeft(ctx context.Context, img *copied, digest v1.Hash) {
	if c.quiet || c.many || c.all || c.toldLeft {
		return
	}
	list, err := img.around.Referrers(ctx, digest)
	n := len(list)
	if err == nil && n == 0 {
		if _, err := img.around.Find(ctx, registry.ReferrersTag(digest)+".sig"); err == nil {
			n = 1
		}
	}
	if n > 0 {
		c.toldLeft = true
		c.env.note("signatures, SBOMs or other manifests refer to it, and were left behind: --all copies them, too")
	}
}

func (c *copier) limited(src registry.Source) registry.Source {
	if c.limiter == nil {
		return src
	}
	return registry.Limited(src, c.limiter)
}

// tags copies those of a repository that fit. What is there already is found out
// for many at once; the rest goes one after the other, so that what several of
// them have is moved once.
func (c *copier) tags(ctx context.Context, j copyJob, patterns []string) ([]arrived, error) {
	jobs, err := c.tagJobs(ctx, j, patterns)
	if err != nil {
		return nil, err
	}
	done := make([]arrived, len(jobs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, one := range jobs {
		g.Go(func() (err error) {
			done[i], err = c.there(gctx, one)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, one := range jobs {
		if done[i].digest.Hex != "" && !c.all {
			continue
		}
		if done[i], err = c.bring(ctx, one, done[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", one.tag, err)
		}
	}
	return done, nil
}

// tagJobs are the copies of the tags that fit.
func (c *copier) tagJobs(ctx context.Context, j copyJob, patterns []string) ([]copyJob, error) {
	if err := tagPatterns(patterns).Check(); err != nil {
		return nil, err
	}
	tags, err := j.source.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var jobs []copyJob
	for _, tag := range tags {
		if !fitsPatterns(tag, patterns) {
			continue
		}
		one := j
		one.tag = tag
		if one.from, err = j.from.tagged(tag); err != nil {
			return nil, err
		}
		if j.to.kind == inRegistry {
			if one.to, err = j.to.tagged(tag); err != nil {
				return nil, err
			}
		}
		jobs = append(jobs, one)
	}
	if len(jobs) == 0 {
		return nil, errNoTags
	}
	return jobs, nil
}

// fitsPatterns reports whether a tag fits one of the patterns, if there are any,
// and none of those that begin with "!". Tags that stand for what refers to an
// image never do: they go with it.
func fitsPatterns(tag string, patterns []string) bool {
	_, refers := registry.IsReferrersTag(tag)
	return !refers && tagPatterns(patterns).Matches(tag)
}

func tagPatterns(patterns []string) (r registry.Retention) {
	for _, p := range patterns {
		if not, ok := strings.CutPrefix(p, "!"); ok {
			r.Exclude = append(r.Exclude, not)
		} else {
			r.Match = append(r.Match, p)
		}
	}
	return r
}
