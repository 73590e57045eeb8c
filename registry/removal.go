package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// NeededError says that a manifest is part of an index that stays.
type NeededError struct {
	Digest v1.Hash
	Tags   []string // that lead to it, sorted
}

func (e *NeededError) Error() string {
	return fmt.Sprintf("%s is part of what %s names", e.Digest, strings.Join(e.Tags, ", "))
}

// Removal is what goes when some tags and manifests do. [Removal.Delete] carries
// it out.
type Removal struct {
	Tags      []string        // sorted
	Manifests []v1.Descriptor // an index before its images, an image before what refers to it
	Missing   []error         // a [*NotFoundError] for each that was not there

	of       *Holdings
	levels   [][]v1.Hash // of Manifests: those of one may go at once
	subjects []v1.Hash   // that stay, but lose a referrer
}

// Selection is what is to be deleted in one repository.
type Selection struct {
	Tags    []string
	Digests []v1.Hash // of manifests, which go with all their tags
	Force   bool      // also a manifest that an index needs which stays
}

// Remove says what goes with a selection: each manifest that only its tags lead
// to, and what refers to those. What another tag names, what an index under
// another tag has, and what refers to a manifest that stays is not touched. A
// digest that is part of an index which stays is a [*NeededError], unless forced.
func (h *Holdings) Remove(ctx context.Context, what Selection) (*Removal, error) {
	p := &planning{h: h, gone: map[string]bool{}, explicit: map[v1.Hash]bool{}}
	for _, tag := range what.Tags {
		if _, err := h.find(tag); err != nil {
			p.missing = append(p.missing, err)
			continue
		}
		p.gone[tag] = true
	}
	for _, digest := range what.Digests {
		err := h.learn(ctx, digest)
		if is[*NotFoundError](err) {
			p.missing = append(p.missing, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		p.explicit[digest] = true
		for _, t := range h.tags {
			if t.Descriptor.Digest == digest {
				p.gone[t.Tag] = true
			}
		}
	}
	if err := p.checkNeeded(what.Digests); err != nil && !what.Force {
		return nil, err
	}
	if err := p.settle(ctx); err != nil {
		return nil, err
	}
	return p.removal(), nil
}

// learn of a manifest that perhaps no tag leads to.
func (h *Holdings) learn(ctx context.Context, digest v1.Hash) error {
	if h.nodes[digest] != nil {
		return nil
	}
	d, err := h.session.stat(ctx, digest.String())
	if is[*NotFoundError](err) {
		return &NotFoundError{Ref: reference.FamiliarName(h.repo) + "@" + digest.String()}
	}
	if err != nil {
		return err
	}
	return h.grow(ctx, []v1.Descriptor{d})
}

// planning is a Removal in the making.
type planning struct {
	h        *Holdings
	gone     map[string]bool
	explicit map[v1.Hash]bool // asked for by digest
	missing  []error

	needed map[v1.Hash]bool
	levels [][]v1.Hash
}

// checkNeeded that no index which stays has one of these.
func (p *planning) checkNeeded(manifests []v1.Hash) error {
	for _, digest := range manifests {
		var by []string
		for _, t := range p.h.Tags() {
			below := map[v1.Hash]bool{}
			if p.h.reach([]v1.Hash{t.Descriptor.Digest}, below, nil); !p.gone[t.Tag] && below[digest] {
				by = append(by, t.Tag)
			}
		}
		if len(by) > 0 {
			slices.Sort(by)
			return &NeededError{Digest: digest, Tags: by}
		}
	}
	return nil
}

// settle what goes: tags that stand in for referrers go with their subjects, and
// what only they led to goes then too. Each round more goes and less is needed.
func (p *planning) settle(ctx context.Context) error {
	for {
		p.needed = map[v1.Hash]bool{}
		var kept []v1.Hash
		for _, t := range p.h.tags {
			if !p.gone[t.Tag] {
				kept = append(kept, t.Descriptor.Digest)
			}
		}
		p.h.reach(kept, p.needed, nil)
		doomed, err := p.doom(ctx)
		if err != nil {
			return err
		}
		more := false
		for _, t := range p.h.tags {
			if subject, ok := IsReferrersTag(t.Tag); ok && doomed[subject] && !p.gone[t.Tag] {
				p.gone[t.Tag], more = true, true
			}
		}
		if !more {
			return nil
		}
	}
}

// doom finds the manifests that nothing needs any more, level by level.
func (p *planning) doom(ctx context.Context) (map[v1.Hash]bool, error) {
	doomed := map[v1.Hash]bool{}
	p.levels = nil
	next := slices.Collect(maps.Keys(p.explicit))
	for _, t := range p.h.tags {
		if p.gone[t.Tag] {
			next = append(next, t.Descriptor.Digest)
		}
	}
	for len(next) > 0 {
		var level []v1.Hash
		for _, digest := range next {
			if p.h.nodes[digest] != nil && !doomed[digest] && (p.explicit[digest] || !p.needed[digest]) {
				doomed[digest] = true
				level = append(level, digest)
			}
		}
		level, err := p.freed(ctx, level, doomed)
		if err != nil {
			return nil, err
		}
		if next, err = p.below(ctx, level); err != nil {
			return nil, err
		}
		if len(level) > 0 {
			p.levels = append(p.levels, level)
		}
	}
	return doomed, nil
}

// freed are those of level that do not refer to something that stays.
func (p *planning) freed(ctx context.Context, level []v1.Hash, doomed map[v1.Hash]bool) ([]v1.Hash, error) {
	if err := each(ctx, len(level), func(ctx context.Context, i int) error {
		_, err := p.h.load(ctx, level[i])
		return err
	}); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(level, func(digest v1.Hash) bool {
		subject := p.h.nodes[digest].details.Subject
		stays := subject != nil && p.needed[subject.Digest] && !doomed[subject.Digest] && !p.explicit[digest]
		if stays {
			delete(doomed, digest)
		}
		return stays
	}), nil
}

// below are the manifests in those of a level, and what refers to them.
func (p *planning) below(ctx context.Context, level []v1.Hash) ([]v1.Hash, error) {
	found := make([][]v1.Descriptor, len(level))
	if err := each(ctx, len(level), func(ctx context.Context, i int) (err error) {
		found[i], err = p.h.referrersOf(ctx, level[i])
		return err
	}); err != nil {
		return nil, err
	}
	var next []v1.Hash
	for i, digest := range level {
		if err := p.h.grow(ctx, found[i]); err != nil {
			return nil, err
		}
		for _, d := range append(slices.Clone(p.h.nodes[digest].children), found[i]...) {
			next = append(next, d.Digest)
		}
	}
	return next, nil
}

// referrersOf a manifest, asked for once.
func (h *Holdings) referrersOf(ctx context.Context, digest v1.Hash) ([]v1.Descriptor, error) {
	n := h.nodes[digest]
	if n.referrers == nil {
		found, err := h.session.referrers(ctx, digest)
		if is[*NotFoundError](err) {
			err = nil
		}
		if err != nil {
			return nil, err
		}
		n.referrers = &found
	}
	return *n.referrers, nil
}

func (p *planning) removal() *Removal {
	r := &Removal{of: p.h, levels: p.levels, Missing: p.missing, Tags: slices.Sorted(maps.Keys(p.gone))}
	for _, level := range p.levels {
		slices.SortFunc(level, func(a, b v1.Hash) int { return strings.Compare(a.Hex, b.Hex) })
		for _, digest := range level {
			n := p.h.nodes[digest]
			r.Manifests = append(r.Manifests, n.desc)
			if subject := n.details.Subject; subject != nil && !slices.Contains(r.subjects, subject.Digest) {
				r.subjects = append(r.subjects, subject.Digest)
			}
		}
	}
	return r
}
