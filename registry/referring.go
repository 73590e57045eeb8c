package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A registry with the referrers API lists what refers to a manifest by itself. One
// without it has to be told, by the index under a tag that all who push share:
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests-with-subject

// referral is one manifest with a subject.
type referral struct {
	subject  v1.Hash
	referrer v1.Descriptor // as the list has it
}

// referralIn reads the subject of manifest d; ok is false if it has none.
func referralIn(raw []byte, d v1.Descriptor) (r referral, ok bool) {
	var m struct {
		Subject      *v1.Descriptor    `json:"subject"`
		ArtifactType string            `json:"artifactType"`
		Annotations  map[string]string `json:"annotations"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
	}
	if json.Unmarshal(raw, &m) != nil || m.Subject == nil || m.Subject.Digest.Hex == "" {
		return referral{}, false
	}
	return referral{m.Subject.Digest, v1.Descriptor{
		MediaType: d.MediaType, Size: d.Size, Digest: d.Digest,
		ArtifactType: cmp.Or(m.ArtifactType, m.Config.MediaType), Annotations: m.Annotations,
	}}, true
}

// unreferring answers for the registry what ggcr would ask it for about referrers:
// nothing is left to do then. Ggcr's own way to add to the list loses what is
// added at the same time.
type unreferring struct{ *session }

// RoundTrip implements [http.RoundTripper].
func (u unreferring) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || !strings.Contains(req.URL.Path, "/referrers/") {
		return u.session.RoundTrip(req)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

// referrals of one push, which the registry did not say it keeps by itself.
type referrals struct {
	mu   sync.Mutex
	read map[v1.Hash]referral
	left []referral
}

// note what is about to be sent.
func (r *referrals) note(raw []byte, d v1.Descriptor) {
	one, ok := referralIn(raw, d)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.read == nil {
		r.read = map[v1.Hash]referral{}
	}
	r.read[d.Digest] = one
}

// observe the answer to what was sent: root is what a tag stands for.
func (r *referrals) observe(req *http.Request, resp *http.Response, root v1.Hash) {
	if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/manifests/") ||
		resp.StatusCode/100 != 2 || resp.Header.Get("OCI-Subject") != "" {
		return
	}
	digest, err := v1.NewHash(path.Base(req.URL.Path))
	if err != nil {
		digest = root
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if one, ok := r.read[digest]; ok {
		r.left = append(r.left, one)
	}
}

// Refer makes sure that repo lists referrer, which is there, among the referrers
// of subject. [Client.Push] has done so for what it sent; what was pushed by
// others, or by a push that did not end, may lack it. A tag or digest in repo does
// not matter. The errors are those of [Client.Push].
func (c *Client) Refer(ctx context.Context, repo reference.Named, subject v1.Hash, referrer v1.Descriptor) error {
	s, err := c.pushSession(ctx, repo)
	if err != nil {
		return err
	}
	return c.refer(ctx, s, referral{subject, referrer})
}

// refer adds r to the list of its subject, unless the registry keeps it.
func (c *Client) refer(ctx context.Context, s *session, r referral) error {
	if _, ok := c.lists.Load(s.to); ok {
		return nil
	}
	_, known, err := s.referrersByAPI(ctx, r.subject)
	if err != nil {
		return err
	}
	if known {
		c.lists.Store(s.to, true)
		return nil
	}
	one, _ := c.referring.LoadOrStore(s.to.host+"/"+s.repo+"@"+r.subject.String(), new(sync.Mutex))
	mu := one.(*sync.Mutex)
	mu.Lock()
	defer mu.Unlock()
	return s.addReferrer(ctx, r)
}

// addReferrer until it is in the list: somebody else may write it at the same
// time, and there is no way to lock it.
func (s *session) addReferrer(ctx context.Context, r referral) error {
	for try := range s.limits.tries {
		index, err := s.referrersByTag(ctx, r.subject)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == r.referrer.Digest }) {
			return nil
		}
		if try > 0 {
			pause, _ := s.limits.pause(try, 0)
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
		index.SchemaVersion, index.MediaType = 2, types.OCIImageIndex
		index.Manifests = append(index.Manifests, r.referrer)
		if len(index.Manifests) > maxReferrers {
			return s.endless()
		}
		if err := s.putIndex(ctx, ReferrersTag(r.subject), index); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s cannot be added to the referrers of %s: others keep writing the list", r.referrer.Digest, r.subject)
}

func (s *session) putIndex(ctx context.Context, tag string, index v1.IndexManifest) error {
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.to.url(s.repo+"/manifests/"+tag).String(), bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", string(index.MediaType))
	resp, err := s.client().Do(req)
	if err != nil {
		return s.fault(err)
	}
	if resp.StatusCode/100 != 2 {
		return s.refused(resp)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxError))
	return errors.Join(err, resp.Body.Close())
}
