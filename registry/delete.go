package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// NoDeleteError says that a registry lets nobody delete images, or not that way.
type NoDeleteError struct {
	Host    string
	Status  int    // of HTTP; 0: it does delete, but not a single tag
	Message string // what the registry said or did, bounded and printable; may be empty
}

func (e *NoDeleteError) Error() string {
	if e.Status == 0 {
		return withMessage(fmt.Sprintf("registry %s does not let a single tag be deleted", e.Host), e.Message)
	}
	return withMessage(fmt.Sprintf("registry %s does not let images be deleted (status %d)", e.Host, e.Status), e.Message)
}

// Delete carries r out: tags first, then manifests, each after those that need it.
// What is gone already is no error. done is told of every tag and digest as it
// goes, never concurrently. The error is a [*NoDeleteError] if the registry does
// not know how, or one of those that [Client.Get] has.
//
// Of a tag whose manifest stays only the tag is deleted. A registry that knows no
// such thing is given an empty manifest under the tag, and that is deleted: to
// delete by digest would take all tags of the manifest away.
func (r *Removal) Delete(ctx context.Context, done func(tag string, digest v1.Hash)) error {
	d := &deletion{Removal: r, session: r.of.session, instead: replacer{session: r.of.session}, told: done, doomed: map[v1.Hash]bool{}, left: map[v1.Hash][]string{}}
	for _, m := range r.Manifests {
		d.doomed[m.Digest] = true
	}
	tags := slices.Clone(r.Tags)
	slices.SortStableFunc(tags, func(a, b string) int { return boolToInt(d.goes(a)) - boolToInt(d.goes(b)) })
	first := min(1, len(tags)) // it shows what the registry can do
	for _, tags := range [][]string{tags[:first], tags[first:]} {
		if err := each(ctx, len(tags), func(ctx context.Context, i int) error { return d.untag(ctx, tags[i]) }); err != nil {
			return err
		}
	}
	for _, level := range r.levels {
		if err := each(ctx, len(level), func(ctx context.Context, i int) error { return d.manifest(ctx, level[i]) }); err != nil {
			return err
		}
	}
	return d.correctLists(ctx)
}

// Untag deletes a tag, as [Removal.Delete] does, and leaves what it names to the
// registry. Nothing else of the repository is asked for. The error is a
// [*NotFoundError] if there is no such tag.
func (c *Client) Untag(ctx context.Context, ref reference.NamedTagged) error {
	s, err := c.writer(ctx, ref)
	if err != nil {
		return err
	}
	s.ref = reference.FamiliarString(ref)
	if _, err := s.stat(ctx, ref.Tag()); err != nil {
		return err
	}
	if known, err := s.deleteTag(ctx, ref.Tag()); err != nil || known {
		return err
	}
	return (&replacer{session: s}).untag(ctx, ref.Tag())
}

// deletion is a Removal under way.
type deletion struct {
	*Removal
	session *session
	doomed  map[v1.Hash]bool
	noTags  atomic.Bool // the registry deletes no tags
	proven  atomic.Bool // with a tag nothing else is deleted
	instead replacer

	mu   sync.Mutex
	told func(tag string, digest v1.Hash)
	left map[v1.Hash][]string // tags that go with their manifests
}

func (d *deletion) tell(tag string, digest v1.Hash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told != nil {
		d.told(tag, digest)
	}
}

// goes says whether what a tag names is deleted too.
func (d *deletion) goes(tag string) bool {
	holding, err := d.of.find(tag)
	return err == nil && d.doomed[holding.Descriptor.Digest]
}

// untag deletes a tag, or leaves it to the deletion of its manifest.
func (d *deletion) untag(ctx context.Context, tag string) error {
	if !d.noTags.Load() {
		known, err := d.deleteTag(ctx, tag)
		if err != nil {
			return err
		}
		if known {
			d.tell(tag, v1.Hash{})
			return nil
		}
		d.noTags.Store(true)
	}
	holding, err := d.of.find(tag)
	if err != nil {
		return err
	}
	if d.doomed[holding.Descriptor.Digest] {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.left[holding.Descriptor.Digest] = append(d.left[holding.Descriptor.Digest], tag)
		return nil
	}
	if err := d.instead.untag(ctx, tag); err != nil {
		return err
	}
	d.tell(tag, v1.Hash{})
	return nil
}

// manifest deletes one by its digest, and so the tags that were left to it.
func (d *deletion) manifest(ctx context.Context, digest v1.Hash) error {
	resp, err := d.session.remove(ctx, digest.String())
	if err != nil {
		return err
	}
	if err := d.session.deleted(resp); err != nil {
		return err
	}
	left := d.left[digest] // all of them were left before
	if len(left) > 0 {
		if _, err := d.session.stat(ctx, left[0]); err == nil {
			d.tell("", digest)
			return &NoDeleteError{Host: d.session.to.account(), Message: "tag " + left[0] + " is still there, though the image is deleted"}
		}
	}
	for _, tag := range left {
		d.tell(tag, v1.Hash{})
	}
	d.tell("", digest)
	return nil
}

// deleteTag deletes a tag. Of the first one it makes sure that what it names, if
// that stays, is still there: there were registries that deleted it as well.
func (d *deletion) deleteTag(ctx context.Context, tag string) (known bool, err error) {
	if d.proven.Load() || d.goes(tag) {
		return d.session.deleteTag(ctx, tag)
	}
	raw, desc, err := d.session.manifest(ctx, tag, nil)
	if err != nil {
		return true, notFoundIsFine(err)
	}
	known, err = d.session.deleteTag(ctx, tag)
	if err != nil || !known {
		return known, err
	}
	d.proven.Store(true)
	if _, err := d.session.stat(ctx, desc.Digest.String()); !is[*NotFoundError](err) {
		return true, err
	}
	back := []string{desc.Digest.String()}
	for _, t := range d.of.tags {
		if t.Descriptor.Digest == desc.Digest && !slices.Contains(d.Tags, t.Tag) {
			back = append(back, t.Tag)
		}
	}
	for _, id := range back {
		if err := d.session.putManifest(context.WithoutCancel(ctx), id, desc.MediaType, raw); err != nil {
			return true, err
		}
	}
	return true, &NoDeleteError{Host: d.session.to.account(), Message: "with " + tag + " it deleted the image, which has been put back"}
}

// remove asks for the deletion of a tag or digest.
func (s *session) remove(ctx context.Context, id string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, s.to.url(s.repo+"/manifests/"+id).String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, s.fault(err)
	}
	return resp, nil
}

// deleted reads the answer to the deletion of a digest. What is not there is gone.
func (s *session) deleted(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent, http.StatusNotFound, http.StatusGone:
		discard(resp)
		return nil
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // the status alone says enough
		return &NoDeleteError{Host: s.to.account(), Status: resp.StatusCode, Message: bounded(bodyMessage(body))}
	}
	return s.refused(resp)
}

// deleteTag deletes a tag and nothing else, as registries may since version 1.1 of
// the specification; known is false where this one does not.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#deleting-tags
func (s *session) deleteTag(ctx context.Context, tag string) (known bool, err error) {
	resp, err := s.remove(ctx, tag)
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent, http.StatusGone:
		discard(resp)
		return true, nil
	case http.StatusNotFound:
		discard(resp)
		_, err := s.stat(ctx, tag)
		return is[*NotFoundError](err), notFoundIsFine(err)
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusUnsupportedMediaType:
		discard(resp) // Docker's, before version 3, takes the tag for a bad digest
		return false, nil
	}
	return false, s.refused(resp)
}

func notFoundIsFine(err error) error {
	if is[*NotFoundError](err) {
		return nil
	}
	return err
}

// correctLists takes what was deleted out of the indexes that stand in for the
// referrers API, as who deletes has to do.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#deleting-manifests
func (d *deletion) correctLists(ctx context.Context) error {
	for _, subject := range d.subjects {
		tag := ReferrersTag(subject)
		if d.doomed[subject] || slices.Contains(d.Tags, tag) {
			continue
		}
		index, err := d.session.referrersByTag(ctx, subject)
		if err != nil {
			return err
		}
		all := len(index.Manifests)
		index.Manifests = slices.DeleteFunc(index.Manifests, func(m v1.Descriptor) bool { return d.doomed[m.Digest] })
		switch len(index.Manifests) {
		case all:
		case 0:
			err = d.dropList(ctx, tag)
		default:
			err = d.session.putIndex(ctx, tag, index)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropList deletes a list that is empty now.
func (d *deletion) dropList(ctx context.Context, tag string) error {
	was, err := d.session.stat(ctx, tag)
	if err != nil {
		return notFoundIsFine(err)
	}
	if _, err := d.session.deleteTag(ctx, tag); err != nil {
		return err
	}
	return d.manifest(ctx, was.Digest)
}
