package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// session is how the requests about one repository reach one endpoint. As an
// [http.RoundTripper] it finds the API behind any path, sends the configured
// headers, answers challenges and tries again what is worth it.
type session struct {
	to     *endpoint
	repo   string // "library/alpine"; "" for the registry itself
	ref    string // what errors name: "alpine:3.20"
	action string // "pull", "push,pull"
	auth   *authorizer
	agent  string
	limits limits
	tries  int // of one request

	// waits is told why, and how long, a request has to wait; nil for nobody.
	waits func(status int, d time.Duration)
	// after sees, and may change, every answer that is not tried again.
	after func(*http.Request, *http.Response)
}

// apiHost stands for the endpoint in the requests of ggcr, which knows no paths
// in front of the API: port 0 marks what begins with a plain /v2/. The host is
// the real one, as ggcr compares it with where redirects lead.
func (s *session) apiHost() string {
	return net.JoinHostPort(hostname(s.to.host), "0")
}

// client sends through s, and follows redirects without credentials. From TLS
// none leads to plain HTTP, where anybody could read the address of the blob,
// which is often all it takes to fetch it.
func (s *session) client() *http.Client {
	return &http.Client{Transport: s, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch last := via[len(via)-1].URL; {
		case len(via) >= maxRedirects:
			return fmt.Errorf("redirects do not end after %d", maxRedirects)
		case last.Scheme == "https" && req.URL.Scheme != "https" && !s.own(req.URL) && !s.to.clear(req.URL.Host):
			return fmt.Errorf("refusing the redirect to %s, which has no encryption", bounded(req.URL.Host))
		}
		return nil
	}}
}

// RoundTrip implements [http.RoundTripper].
func (s *session) RoundTrip(in *http.Request) (*http.Response, error) {
	req := in.Clone(in.Context())
	abstract := req.URL.Host == s.apiHost()
	if abstract {
		s.locate(req)
	}
	req.Header.Set("User-Agent", s.agent)
	if s.own(req.URL) || s.portless(req.URL) {
		// Behind a proxy a registry may take its own links for plain HTTP.
		req.URL.Scheme, req.URL.Host = s.to.scheme, s.to.host
		for k, v := range s.to.header {
			req.Header[http.CanonicalHeaderKey(k)] = v
		}
	}
	resp, err := s.persist(req)
	if from := req.URL.Query().Get("from"); from != "" && req.Method == http.MethodPost && notAllowed(resp, err) {
		resp, err = s.uploadInstead(req, resp)
	}
	if err != nil {
		return nil, err
	}
	if abstract {
		absoluteLocation(resp, req.URL)
	}
	if s.after != nil {
		s.after(req, resp)
	}
	return resp, nil
}

// notAllowed: a registry, or its token server, does not let us see the repository
// that a blob would be mounted from.
func notAllowed(resp *http.Response, err error) bool {
	if err != nil {
		return is[*UnauthorizedError](err)
	}
	return resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
}

// uploadInstead begins the upload of a blob that could not be mounted.
func (s *session) uploadInstead(req *http.Request, resp *http.Response) (*http.Response, error) {
	if resp != nil {
		discard(resp)
	}
	again := req.Clone(req.Context())
	again.URL.RawQuery = ""
	return s.persist(again)
}

// locate turns ggcr's idea of a URL into the real one.
func (s *session) locate(req *http.Request) {
	u := s.to.url(strings.TrimPrefix(req.URL.Path, "/v2/"))
	q := req.URL.Query()
	q.Del("origin") // no specification has it, and it would name the stand-in
	u.RawQuery = q.Encode()
	req.URL, req.Host = u, ""
}

// absoluteLocation keeps a relative redirect from being resolved against the
// host that only stands for the real one.
func absoluteLocation(resp *http.Response, base *url.URL) {
	location := resp.Header.Get("Location")
	if u, err := base.Parse(location); err == nil && location != "" {
		resp.Header.Set("Location", u.String())
	}
}

// own reports whether u is on the endpoint, whatever its scheme.
func (s *session) own(u *url.URL) bool {
	port := map[string]string{"http": ":80", "https": ":443"}
	return strings.TrimSuffix(u.Host, port[u.Scheme]) == strings.TrimSuffix(s.to.host, port[s.to.scheme])
}

// portless: a registry whose port another one stands for, as that of a container
// may, knows its name only, and leads uploads to the port that it does not have.
// https://github.com/distribution/distribution/issues/2862
func (s *session) portless(u *url.URL) bool {
	return s.to.host != hostname(s.to.host) && u.Host == hostname(s.to.host) && s.repo != "" &&
		strings.HasPrefix(u.Path, s.to.url(s.repo+"/blobs/uploads/").Path)
}

// persist sends req until there is an answer that trying again would not better.
func (s *session) persist(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := s.authorized(req)
		wait, again := s.worthRetrying(req, resp, err, try)
		if !again {
			return resp, err
		}
		if resp != nil {
			s.tellWait(resp.StatusCode, wait)
			discard(resp)
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if err := rewind(req); err != nil {
			return nil, err
		}
	}
}

func (s *session) tellWait(status int, d time.Duration) {
	if s.waits != nil {
		s.waits(status, d)
	}
}

// worthRetrying says whether, and after which pause.
func (s *session) worthRetrying(req *http.Request, resp *http.Response, err error, try int) (time.Duration, bool) {
	tries := s.tries
	if errors.Is(err, errStalled) {
		tries = min(tries, s.limits.stalls)
	}
	if try >= tries || req.Context().Err() != nil || !repeatable(req) {
		return 0, false
	}
	if err != nil {
		wait, ok := s.limits.pause(try, 0)
		return wait, ok && isTransient(err)
	}
	if !isTransientStatus(resp.StatusCode) {
		return 0, false
	}
	return s.limits.pause(try, retryAfter(resp.Header, time.Now()))
}

// repeatable: an upload session may have taken half of a PATCH, or all of a blob
// before it failed to say so; whoever pushes has to begin anew.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		return true
	case http.MethodPost:
		return req.Body == nil || req.Body == http.NoBody
	case http.MethodPut:
		return strings.Contains(req.URL.Path, "/manifests/") && req.GetBody != nil
	}
	return false
}

func isTransientStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// isTransient reports whether err is a connection that broke, in contrast to one
// that never was.
func isTransient(err error) bool {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" || isTLS(err) {
		return false
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errStalled) || errors.As(err, &dial) {
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// authorized sends req with what the registry asked for last, and once more if
// it asks for something else.
func (s *session) authorized(req *http.Request) (*http.Response, error) {
	if !s.own(req.URL) {
		return s.send(req, "") // a redirect: nothing of ours goes there
	}
	scopes := s.scopes(req)
	proof, err := s.auth.proof(req.Context(), scopes)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := s.send(req, proof)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	better, err := s.auth.answer(req.Context(), resp.Header, proof, scopes)
	if err == nil && better == "" {
		return resp, nil
	}
	discard(resp)
	if err == nil {
		err = rewind(req)
	}
	if err != nil {
		return nil, err
	}
	return s.send(req, better)
}

// send puts req on the wire, unless it is for a host that was not to be reached
// a moment ago.
func (s *session) send(req *http.Request, proof string) (*http.Response, error) {
	own := s.own(req.URL)
	if err := s.to.out.err(); own && err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := s.transmit(req, proof)
	if own && s.limits.down > 0 && !s.to.alone {
		s.to.out.note(err, s.limits.down)
	}
	return resp, err
}

func (s *session) transmit(req *http.Request, proof string) (*http.Response, error) {
	if proof != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", proof)
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return watchedUpload(s.to.base, req, s.limits.stall)
	}
	return watched(s.to.base, req, s.limits.stall)
}

// scopes that a token for req needs, as the token specification writes them. A
// mount reads from a second repository.
func (s *session) scopes(req *http.Request) []string {
	if s.repo == "" {
		return nil
	}
	scopes := []string{"repository:" + s.repo + ":" + s.action}
	if from := req.URL.Query().Get("from"); from != "" && req.Method == http.MethodPost {
		scopes = append(scopes, "repository:"+from+":pull")
	}
	return scopes
}

// rewind makes req's body readable again.
func rewind(req *http.Request) error {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	if req.GetBody == nil {
		return errors.New("the body cannot be sent twice")
	}
	body, err := req.GetBody()
	if err != nil {
		return err
	}
	req.Body = body
	return nil
}

// discard reads a little more of an answer, so that its connection can be used
// again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxError)
	_ = resp.Body.Close()
}

// sleep for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
