package registry

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Push sends src and everything reachable from it to ref: blobs first, then
// manifests, the one that ref names last, all of them byte by byte as they are.
// What the registry has is not sent: it is asked for each manifest and blob, and
// takes a blob from another of its repositories if src knows of one (see
// [Origins]) or its descriptor is annotated as containerd does it. Of hosts.toml
// the first host that may be pushed to is used, and no other.
//
// ref is a tag, or the digest of src. The errors are those of [Client.Get], and
// whatever src.Open says.
func (c *Client) Push(ctx context.Context, ref reference.Named, src Source) error {
	ref = reference.TagNameOnly(ref)
	if d, ok := ref.(reference.Digested); ok && d.Digest().String() != src.Descriptor().Digest.String() {
		return fmt.Errorf("cannot push %s as %q", src.Descriptor().Digest, reference.FamiliarString(ref))
	}
	s, err := c.pushSession(ctx, ref)
	if err != nil {
		return err
	}
	stand, err := name.NewRegistry(s.apiHost())
	if err != nil {
		return err
	}
	p := &push{
		source: src, session: s, progress: c.config.Progress,
		domain: reference.Domain(ref), registry: stand, limits: c.limits, held: &c.held,
	}
	s.after = p.observe
	if err := p.run(ctx, ref); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wrong := p.blame(ctx); wrong != nil {
			return wrong
		}
		return p.fault(err)
	}
	for _, r := range p.referrals.left {
		if err := c.refer(ctx, c.session(s.to, ref, "push,pull"), r); err != nil {
			return err
		}
	}
	return nil
}

// pushSession is one with the host that ref is pushed to.
func (c *Client) pushSession(ctx context.Context, ref reference.Named) (*session, error) {
	hosts, err := c.endpoints(ctx, reference.Domain(ref), reference.Path(ref), docker.HostCapabilityPush)
	if err != nil {
		return nil, err
	}
	c.noticeDetour(ctx, hosts[0])
	return c.session(hosts[0], ref, "push,pull"), nil
}

// noticeDetour tells that a push does not go to the registry that it names: a
// mirror of hosts.toml may be pushed to unless its capabilities say otherwise.
func (c *Client) noticeDetour(ctx context.Context, to *endpoint) {
	all, err := c.allEndpoints(ctx, to.name)
	if err == nil && to != all[len(all)-1] {
		c.notice("push "+to.name, fmt.Sprintf("pushing to %s, as the configuration of %s has it", to.account(), to.name))
	}
}

// Origins may be implemented by a [Source] that knows repositories which hold
// its blobs: a registry that serves one of them need not be sent the blob.
type Origins interface {
	Origins(d v1.Descriptor) []reference.Named
}

// Origins implements [Origins]: the repository that i was resolved in.
func (i *Image) Origins(v1.Descriptor) []reference.Named {
	return []reference.Named{reference.TrimNamed(i.ref)}
}

// push is one image or index on its way to a registry.
type push struct {
	source   Source
	session  *session
	progress func(d v1.Descriptor, written int64)
	domain   string        // the registry as names spell it
	registry name.Registry // as ggcr has it: see apiHost
	limits   limits
	held     *sync.Map // see Client

	blobs     sync.Map // of digest to v1.Descriptor: what has been asked about
	referrals referrals

	mu        sync.Mutex
	notBefore time.Time // the registry wants to be left alone until then
	broken    error     // the source's first error
	refused   string    // the digest of the first blob that the registry did not find in what it got
}

func (p *push) run(ctx context.Context, ref reference.Named) error {
	// A transport of this type is ggcr's sign that retries and credentials are
	// ours. It has no constructor but this; nothing is added to what we send.
	through, err := transport.FromToken(p.registry, authn.Anonymous, &uploads{unreferring{p.session}, p, &p.session.to.taking}, &transport.Challenge{}, nil)
	if err != nil {
		return err
	}
	pusher, err := remote.NewPusher(
		remote.WithTransport(through),
		remote.WithJobs(parallel),
		remote.WithRetryBackoff(remote.Backoff{Duration: time.Millisecond, Factor: 1, Steps: p.limits.tries}),
		remote.WithRetryPredicate(func(err error) bool { return p.again(ctx, err) }),
	)
	if err != nil {
		return err
	}
	root, err := p.manifest(ctx, p.source.Descriptor())
	if err != nil {
		return err
	}
	repo := p.registry.Repo(p.session.repo)
	if t, ok := ref.(reference.Tagged); ok {
		return pusher.Push(ctx, repo.Tag(t.Tag()), root)
	}
	return pusher.Push(ctx, repo.Digest(p.source.Descriptor().Digest.String()), root)
}

// again decides whether a blob or manifest is sent anew after err, and waits
// first: ggcr's own pauses cannot be interrupted.
func (p *push) again(ctx context.Context, err error) bool {
	transient := isTransient(err)
	if status, ok := errors.AsType[*transport.Error](err); ok {
		transient = isTransientStatus(status.StatusCode)
	}
	p.mu.Lock()
	wait := time.Until(p.notBefore)
	transient = transient && p.broken == nil && wait <= p.limits.patience
	p.mu.Unlock()
	if !transient {
		return false
	}
	pause, _ := p.limits.pause(2, 0)
	return sleep(ctx, max(pause, wait)) == nil
}

// observe what the registry answers: what it has already, when it wants to be
// asked again, and where it lacks what ggcr takes for granted.
func (p *push) observe(req *http.Request, resp *http.Response) {
	if wait := retryAfter(resp.Header, time.Now()); wait > 0 && isTransientStatus(resp.StatusCode) {
		p.mu.Lock()
		p.notBefore = time.Now().Add(wait)
		p.mu.Unlock()
		if wait <= p.limits.patience {
			p.session.tellWait(resp.StatusCode, wait)
		}
	}
	resp.StatusCode = meant(req, resp)
	p.referrals.observe(req, resp, p.source.Descriptor().Digest)
	switch {
	case req.Method == http.MethodHead && unknowable(req, resp):
		resp.StatusCode = http.StatusNotFound
	case req.Method == http.MethodHead && resp.StatusCode == http.StatusOK:
		p.exists(path.Base(req.URL.Path))
	case req.Method == http.MethodPost && resp.StatusCode == http.StatusCreated:
		p.exists(req.URL.Query().Get("mount"))
	case req.Method == http.MethodPut && resp.StatusCode == http.StatusCreated && req.URL.Query().Has("digest"):
		p.held.Store(heldBlob{p.session.to, req.URL.Query().Get("digest")}, p.session.repo)
	case resp.StatusCode == http.StatusBadRequest && req.URL.Query().Has("digest"):
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refused = cmp.Or(p.refused, req.URL.Query().Get("digest"))
	}
}

// blame finds out whether the source has other bytes than a blob that was refused.
// Every registry verifies what it is sent; nothing is hashed twice unless one
// complains. It is nil if the source is right, or can't be read any more.
func (p *push) blame(ctx context.Context) error {
	p.mu.Lock()
	d, ok := p.blobs.Load(p.refused)
	p.mu.Unlock()
	if !ok {
		return nil
	}
	want := d.(v1.Descriptor)
	r, err := p.open(ctx, want)
	if err != nil {
		return nil // what the registry says is told anyway
	}
	defer r.Close()
	h, err := v1.Hasher(want.Digest.Algorithm)
	if err != nil {
		return nil
	}
	if _, err := io.Copy(h, io.LimitReader(r, want.Size+1)); err != nil {
		return nil
	}
	got := v1.Hash{Algorithm: want.Digest.Algorithm, Hex: hex.EncodeToString(h.Sum(nil))}
	if got == want.Digest {
		return nil
	}
	return &DigestError{Host: sourceHost(p.source), Want: want.Digest, Got: got}
}

// heldBlob is one of those that a registry is known to have: by who pushed it, or
// was told that it is there.
type heldBlob struct {
	to     *endpoint
	digest string
}

// unknowable: a registry without HEAD, or one that does not say which manifest it
// has, is sent everything.
func unknowable(req *http.Request, resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	case http.StatusOK:
		_, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
		return err != nil && strings.Contains(req.URL.Path, "/manifests/")
	}
	return false
}

// exists reports a blob that need not be sent.
func (p *push) exists(digest string) {
	if _, asked := p.blobs.Load(digest); asked {
		p.held.Store(heldBlob{p.session.to, digest}, p.session.repo)
	}
	if d, ok := p.blobs.Load(digest); ok && p.progress != nil {
		p.progress(d.(v1.Descriptor), d.(v1.Descriptor).Size)
	}
}

// failed keeps the source's error: HTTP would wrap it into one of the network.
func (p *push) failed(d v1.Descriptor, err error) error {
	err = fmt.Errorf("reading %s: %w", d.Digest, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = err
	}
	return err
}

func (p *push) fault(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return p.broken
	}
	return p.session.fault(err)
}

// origin is a repository of the same registry that holds d, or "".
func (p *push) origin(d v1.Descriptor) string {
	if o, ok := p.source.(Origins); ok {
		for _, from := range o.Origins(d) {
			if reference.Domain(from) == p.domain && reference.Path(from) != p.session.repo {
				return reference.Path(from)
			}
		}
	}
	// https://github.com/containerd/containerd/blob/main/docs/content-flow.md
	for repo := range strings.SplitSeq(d.Annotations["containerd.io/distribution.source."+p.domain], ",") {
		if _, err := reference.WithName(p.domain + "/" + repo); err == nil && repo != p.session.repo {
			return repo
		}
	}
	if repo, ok := p.held.Load(heldBlob{p.session.to, d.Digest.String()}); ok && repo != p.session.repo {
		return repo.(string)
	}
	return ""
}
