package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// solverPatience is how long a solver waits for an answer to begin. It takes part
// in no uploads that a registry may digest for minutes.
const solverPatience = 60 * time.Second

// RegistryHosts is how a solver that speaks containerd's language reaches
// registries: on the hosts that c would ask, in their order, with their
// certificates, and by the same rules. A host seems not to have what the
// configuration keeps from it, no password is sent without encryption where it
// must not, and [Config.Notice] is told when a later host answers instead of the
// first. Credentials are the solver's business.
func (c *Client) RegistryHosts(ctx context.Context) docker.RegistryHosts {
	own := New(c.config)
	own.limits.answer = solverPatience
	return func(name string) ([]docker.RegistryHost, error) {
		all, err := own.allEndpoints(ctx, name)
		if err != nil {
			return nil, err
		}
		seen := &firstHost{client: own, why: make(map[string]string)}
		hosts := make([]docker.RegistryHost, len(all))
		for i, e := range all {
			hosts[i] = docker.RegistryHost{
				Client: &http.Client{Transport: &lentHost{to: e, first: all[0], last: i == len(all)-1, seen: seen}},
				Host:   e.host, Scheme: e.scheme, Path: e.path, Capabilities: e.can, Header: e.header,
			}
		}
		return hosts, nil
	}
}

// lentHost is the way of somebody else's requests to an endpoint.
type lentHost struct {
	to, first *endpoint
	last      bool // there is no other host to ask
	seen      *firstHost

	mu    sync.Mutex
	spent time.Time // until when no request waits: one waited in vain
}

// RoundTrip implements [http.RoundTripper].
func (l *lentHost) RoundTrip(r *http.Request) (*http.Response, error) {
	repo, kind, id := l.to.asked(r)
	if repo != "" && !l.to.mayServe(repo) {
		closeBody(r)
		l.note(repo, "may not serve it")
		return &http.Response{
			Status: "404 Not Found", StatusCode: http.StatusNotFound, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody, Request: r,
		}, nil
	}
	resp, err := l.persist(r)
	if kind != "manifests" {
		return resp, err
	}
	if err == nil && resp.StatusCode == http.StatusNotFound && r.Method == http.MethodHead {
		resp = l.insteadOfHead(r, resp)
	}
	switch {
	case err != nil:
		l.note(repo, "failed ("+l.to.fault(err).Error()+")")
	case resp.StatusCode == http.StatusNotFound:
		l.note(repo, "does not have it")
	case resp.StatusCode >= http.StatusBadRequest:
		l.note(repo, fmt.Sprintf("failed (status %d)", resp.StatusCode))
	default:
		l.served(repo, id)
	}
	return resp, err
}

// persist asks again as a pull does. Containerd's own way leaves a registry that
// says when to come back no time, and takes the page of a proxy for an answer. What
// has a body is its own business, as it comes out of a pipe.
func (l *lentHost) persist(r *http.Request) (*http.Response, error) {
	limits := l.seen.client.limits
	s := &session{to: l.to, limits: limits, tries: 1}
	l.mu.Lock()
	if l.last && (r.Body == nil || r.Body == http.NoBody) && time.Now().After(l.spent) {
		s.tries = limits.tries
	}
	l.mu.Unlock()
	for try := 1; ; try++ {
		resp, err := l.to.base.RoundTrip(r)
		wait, again := s.worthRetrying(r, resp, err, try)
		if !again {
			if try > 1 && (err != nil || isTransientStatus(resp.StatusCode)) {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.spent = time.Now().Add(limits.patience) // containerd tries five times more
			}
			return resp, err
		}
		if resp != nil {
			l.seen.client.noticeWait(l.to, resp.StatusCode, wait)
			discard(resp)
		}
		if err := sleep(r.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// insteadOfHead asks by GET for a manifest that a HEAD did not find: not every
// registry and proxy has HEAD, and not all of these say so.
func (l *lentHost) insteadOfHead(r *http.Request, notFound *http.Response) *http.Response {
	get := r.Clone(r.Context())
	get.Method = http.MethodGet
	resp, err := l.to.base.RoundTrip(get)
	if err != nil || resp.StatusCode != http.StatusOK {
		if err == nil {
			discard(resp)
		}
		return notFound
	}
	discard(notFound)
	_ = resp.Body.Close() // nobody who sends HEAD reads it
	resp.Body, resp.Request = http.NoBody, r
	return resp
}

// asked is the repository that r is about, and what of it: "manifests" or
// "blobs", with its tag or digest. The repository is "" for the registry itself
// and for anything that is not e's.
func (e *endpoint) asked(r *http.Request) (repo, kind, id string) {
	rest, ok := strings.CutPrefix(r.URL.Path, strings.TrimSuffix(e.path, "/")+"/")
	if !ok || r.URL.Host != e.host {
		return "", "", ""
	}
	for _, kind := range []string{"manifests", "blobs", "referrers", "tags"} {
		if i := strings.LastIndex(rest, "/"+kind+"/"); i > 0 {
			return rest[:i], kind, rest[i+len(kind)+2:]
		}
	}
	return rest, "", ""
}

// firstHost remembers why the first host of a registry did not serve a repository.
type firstHost struct {
	client *Client
	mu     sync.Mutex
	why    map[string]string
}

func (l *lentHost) note(repo, why string) {
	if l.to != l.first {
		return
	}
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	l.seen.why[repo] = why
}

// served tells that a manifest came from a later host, if the first has been asked.
func (l *lentHost) served(repo, id string) {
	l.seen.mu.Lock()
	why, asked := l.seen.why[repo]
	if l.to == l.first {
		delete(l.seen.why, repo) // what went before was only the question for a login
	}
	l.seen.mu.Unlock()
	if l.to == l.first || !asked {
		return
	}
	what := l.to.name + "/" + repo
	if named, err := reference.ParseNormalizedNamed(what); err == nil {
		what = reference.FamiliarName(named)
	}
	separator := ":"
	if strings.Contains(id, ":") {
		separator = "@"
	}
	l.seen.client.tellFallback(what+separator+id, l.to, l.first, why)
}
