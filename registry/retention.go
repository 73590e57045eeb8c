package registry

import (
	"fmt"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Retention says which tags of a repository go. All that are matched go, but for
// those that Keep or OlderThan keeps.
type Retention struct {
	// Match are patterns of tags as [path.Match] has them, of which one has to
	// hold; none: every tag. What Exclude matches is never touched.
	Match, Exclude []string

	// Keep is how many images stay, the newest of those that are matched, with
	// all their matched tags; what is as new as the last of them stays too. nil:
	// age and pattern alone decide.
	Keep *int

	// Before is what an image has to be older than to go; zero: any age will do.
	Before time.Time
}

// Verdict is what becomes of a tag.
type Verdict struct {
	Holding
	Goes bool
	Why  string // for a person: "older than …", "no creation time"
}

// Check that the patterns are patterns.
func (r Retention) Check() error {
	for _, p := range slices.Concat(r.Match, r.Exclude) {
		if _, err := path.Match(p, "tag"); err != nil {
			return fmt.Errorf("invalid pattern %q", p)
		}
	}
	return nil
}

// Matches says whether a tag is matched and not excluded.
func (r Retention) Matches(tag string) bool {
	return (len(r.Match) == 0 || matchesAny(r.Match, tag)) && !matchesAny(r.Exclude, tag)
}

func matchesAny(patterns []string, tag string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, tag)
		return err == nil && ok
	})
}

// Dated says whether the times of images are needed.
func (r Retention) Dated() bool { return r.Keep != nil || !r.Before.IsZero() }

// Judge the tags of a repository, of which those that are matched have to be
// described if r is Dated. What has no creation time stays then. The verdicts are
// those on matched tags, the newest first, those of one age in the order of tags.
func (r Retention) Judge(tags []Holding) []Verdict {
	var verdicts []Verdict
	for _, t := range tags {
		if r.Matches(t.Tag) {
			verdicts = append(verdicts, Verdict{Holding: t, Goes: true, Why: "matched"})
		}
	}
	slices.SortStableFunc(verdicts, func(a, b Verdict) int { return b.About.Created.Compare(a.About.Created) })
	newest := r.newest(verdicts)
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case r.Dated() && v.About.Created.IsZero():
			v.Goes, v.Why = false, "no creation time"
		case r.Keep != nil && *r.Keep > 0 && !v.About.Created.Before(newest):
			v.Goes, v.Why = false, fmt.Sprintf("one of the newest %d", *r.Keep)
		case !r.Before.IsZero() && !v.About.Created.Before(r.Before):
			v.Goes, v.Why = false, "not old enough"
		case !r.Before.IsZero():
			v.Why = "old enough"
		case r.Keep != nil:
			v.Why = fmt.Sprintf("not one of the newest %d", *r.Keep)
		}
	}
	return verdicts
}

// newest is when the last of the Keep newest images was made; zero if there are
// no more than that. The verdicts come newest first.
func (r Retention) newest(verdicts []Verdict) time.Time {
	if r.Keep == nil || *r.Keep <= 0 {
		return time.Time{}
	}
	images := map[v1.Hash]bool{}
	for _, v := range verdicts {
		if v.About.Created.IsZero() {
			break
		}
		images[v.Descriptor.Digest] = true
		if len(images) == *r.Keep {
			return v.About.Created
		}
	}
	return time.Time{}
}
