package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Bounds on what refers to an image: signatures may be signed themselves.
const (
	maxReferrals     = 10_000 // of all manifests of one image
	maxReferralDepth = 8
)

// Surroundings tell what there is around an image, where it comes from.
type Surroundings interface {
	// Referrers lists the manifests whose subject is this one; see [Client.Referrers].
	Referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error)
}

// Referral is a manifest that refers to another one.
type Referral struct {
	Subject  v1.Hash
	Referrer v1.Descriptor
}

// Referrals finds what refers to the manifests of src: to the one it stands for,
// to those below it if it is an index, and to what refers to these. Each is behind
// its subject. Documents has the digests of all manifests that were looked at.
func Referrals(ctx context.Context, src Source, around Surroundings) (found []Referral, documents []v1.Hash, err error) {
	w := &referralWalk{src: src, around: around, seen: map[v1.Hash]bool{}}
	if err := w.below(ctx, src.Descriptor(), 0); err != nil {
		return nil, nil, err
	}
	for depth, next := 0, w.documents; len(next) > 0; depth++ {
		if depth > maxReferralDepth {
			return nil, nil, errors.New("what refers to the image is referred to more than " + fmt.Sprint(maxReferralDepth) + " times")
		}
		more, err := w.referrers(ctx, next)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, more...)
		if len(found) > maxReferrals {
			return nil, nil, fmt.Errorf("more than %d manifests refer to the image", maxReferrals)
		}
		begin := len(w.documents)
		for _, r := range more {
			if err := w.below(ctx, r.Referrer, 0); err != nil {
				return nil, nil, err
			}
		}
		next = w.documents[begin:]
	}
	return found, w.documents, nil
}

type referralWalk struct {
	src       Source
	around    Surroundings
	seen      map[v1.Hash]bool
	documents []v1.Hash
}

// below notes d, and the manifests below it if it is an index.
func (w *referralWalk) below(ctx context.Context, d v1.Descriptor, depth int) error {
	if w.seen[d.Digest] || !isManifest(d.MediaType) {
		return nil
	}
	w.seen[d.Digest] = true
	w.documents = append(w.documents, d.Digest)
	if !d.MediaType.IsIndex() {
		return nil
	}
	if depth == maxReferralDepth || len(w.documents) > maxReferrals {
		return fmt.Errorf("index %s has too much below it", d.Digest)
	}
	raw, err := readDocument(func() (io.ReadCloser, error) { return w.src.Open(ctx, d, 0) }, d.Digest)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	var index refers
	if err := json.Unmarshal(raw, &index); err != nil {
		return fmt.Errorf("index %s: %w", d.Digest, err)
	}
	for _, child := range index.Manifests {
		if err := w.below(ctx, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// referrers of all these, a few at a time.
func (w *referralWalk) referrers(ctx context.Context, subjects []v1.Hash) ([]Referral, error) {
	lists := make([][]v1.Descriptor, len(subjects))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, subject := range subjects {
		g.Go(func() (err error) {
			lists[i], err = w.around.Referrers(gctx, subject)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []Referral
	for i, subject := range subjects {
		for _, d := range lists[i] {
			found = append(found, Referral{subject, d})
		}
	}
	return found, nil
}

// readDocument reads and verifies a manifest.
func readDocument(open func() (io.ReadCloser, error), want v1.Hash) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return nil, err
	}
	got, err := hashOf(want.Algorithm, raw)
	if err == nil && got != want {
		err = fmt.Errorf("its digest is %s", got)
	}
	return raw, err
}

// Copy is [Client.Push] of src, which may be in a registry or anywhere else, with
// all that refers to it as far as around tells; nil leaves that behind. Nothing is
// written to a disk: blobs are mounted or pass through. The errors are those of
// [Client.Push] and of the source.
func (c *Client) Copy(ctx context.Context, ref reference.Named, src Source, around Surroundings) (Copied, error) {
	if err := c.Push(ctx, ref, src); err != nil || around == nil {
		return Copied{}, err
	}
	found, documents, err := Referrals(ctx, src, around)
	if err != nil {
		return Copied{}, err
	}
	done := Copied{Documents: documents}
	repo := reference.TrimNamed(ref)
	there := &listedThere{client: c, repo: repo, lists: map[v1.Hash][]v1.Descriptor{}}
	for _, r := range found {
		listed, err := there.has(ctx, r)
		if err == nil && !listed {
			done.Referrers++
			err = c.copyReferrer(ctx, repo, src, r)
		}
		if err != nil {
			return Copied{}, err
		}
	}
	return done, nil
}

// Copied is what came of a copy with all that refers to it.
type Copied struct {
	Documents []v1.Hash // all manifests, as [Referrals] has them
	Referrers int       // how many manifests that refer to others were new to the destination
}

// copyReferrer brings one to where its subject is.
func (c *Client) copyReferrer(ctx context.Context, repo reference.Named, src Source, r Referral) error {
	pinned, err := pinnedTo(repo, r.Referrer.Digest)
	if err != nil {
		return err
	}
	d := v1.Descriptor{MediaType: r.Referrer.MediaType, Size: r.Referrer.Size, Digest: r.Referrer.Digest, Data: r.Referrer.Data}
	if err := c.Push(ctx, pinned, Rooted(src, d, nil)); err != nil {
		return err
	}
	return c.Refer(ctx, repo, r.Subject, r.Referrer)
}

// listedThere is what the destination lists already, asked once a subject.
type listedThere struct {
	client *Client
	repo   reference.Named
	lists  map[v1.Hash][]v1.Descriptor
}

func (l *listedThere) has(ctx context.Context, r Referral) (bool, error) {
	list, asked := l.lists[r.Subject]
	if !asked {
		s, err := l.client.pushSession(ctx, l.repo)
		if err != nil {
			return false, err
		}
		if list, err = s.referrers(ctx, r.Subject); err != nil {
			return false, err
		}
		l.lists[r.Subject] = list
	}
	return slices.ContainsFunc(list, func(d v1.Descriptor) bool { return d.Digest == r.Referrer.Digest }), nil
}

func pinnedTo(repo reference.Named, h v1.Hash) (reference.Named, error) {
	return reference.ParseNamed(repo.Name() + "@" + h.String())
}
