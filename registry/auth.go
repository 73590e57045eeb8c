package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/google/go-containerregistry/pkg/authn"
)

// formType is how identity tokens travel to a token server.
const formType = "application/x-www-form-urlencoded; charset=utf-8"

// authorizer answers the challenges of one endpoint for one repository, as
// distribution's token specification and RFC 7617 have it. The wire format is
// containerd's; which token server may see a password is decided here.
type authorizer struct {
	to     *endpoint
	agent  string
	limits limits
	login  func() (authn.AuthConfig, error)

	mu        sync.Mutex // held while a token is fetched: all who wait need it
	challenge *auth.Challenge
	tokens    map[string]token // by the scopes asked for
	sent      bool             // credentials have been sent
}

type token struct {
	value   string
	expires time.Time
}

// proof is the Authorization header for scopes, "" as long as the registry has
// asked for none.
func (a *authorizer) proof(ctx context.Context, scopes []string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.challenge == nil {
		return "", nil
	}
	return a.meet(ctx, scopes)
}

// answer is the header for a request that was refused with h though it carried
// tried. It is "" where there is nothing better to send.
func (a *authorizer) answer(ctx context.Context, h http.Header, tried string, scopes []string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	challenges := auth.ParseAuthHeader(h)
	i := slices.IndexFunc(challenges, func(c auth.Challenge) bool {
		return c.Scheme == auth.BearerAuth || c.Scheme == auth.BasicAuth
	})
	if i < 0 {
		return "", nil
	}
	a.challenge = &challenges[i]
	key := strings.Join(scopes, " ")
	if t, ok := a.tokens[key]; ok && t.value == tried {
		delete(a.tokens, key)
	}
	better, err := a.meet(ctx, scopes)
	if better == tried {
		return "", err
	}
	return better, err
}

// sentCredentials reports whether any left this machine.
func (a *authorizer) sentCredentials() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sent
}

func (a *authorizer) meet(ctx context.Context, scopes []string) (string, error) {
	login, err := a.login()
	if err != nil {
		return "", err
	}
	if login.RegistryToken != "" {
		a.sent = true
		return "Bearer " + login.RegistryToken, nil
	}
	if a.challenge.Scheme == auth.BasicAuth {
		if login.Username == "" && login.Password == "" {
			return "", nil
		}
		a.sent = true
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(login.Username+":"+login.Password)), nil
	}
	key := strings.Join(scopes, " ")
	if t, ok := a.tokens[key]; ok && time.Now().Before(t.expires) {
		return t.value, nil
	}
	t, err := a.fetch(ctx, login, scopes)
	if err != nil {
		return "", err
	}
	if a.tokens == nil {
		a.tokens = make(map[string]token)
	}
	a.tokens[key] = t
	return t.value, nil
}

// fetch asks the token server. Like docker it sends a password by GET and an
// identity token by POST, once each: a server that counts failures must not
// count double.
func (a *authorizer) fetch(ctx context.Context, login authn.AuthConfig, scopes []string) (token, error) {
	if err := a.checkRealm(a.challenge.Parameters["realm"]); err != nil {
		return token{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.limits.stall)
	defer cancel()
	options := auth.TokenOptions{
		Realm:    a.challenge.Parameters["realm"],
		Service:  a.challenge.Parameters["service"],
		Scopes:   joinScopes(scopes, a.challenge.Parameters["scope"]),
		Username: login.Username,
		Secret:   login.Password,
	}
	if login.IdentityToken != "" {
		a.sent = true
		options.Username, options.Secret = "", login.IdentityToken
		got, err := auth.FetchTokenWithOAuth(ctx, a.client(), nil, "wherry", options)
		if err != nil {
			return token{}, err
		}
		return newToken(got.AccessToken, got.ExpiresInSeconds), nil
	}
	a.sent = a.sent || options.Secret != ""
	got, err := auth.FetchToken(ctx, a.client(), nil, options)
	if err != nil {
		return token{}, err
	}
	return newToken(got.Token, got.ExpiresInSeconds), nil
}

// newToken: a server that names no lifetime means a minute. A token is given up
// before its time, as an upload may need it for a while.
func newToken(value string, seconds int) token {
	if seconds <= 0 {
		seconds = 60
	}
	return token{"Bearer " + value, time.Now().Add(time.Duration(seconds) * time.Second * 4 / 5)}
}

// checkRealm keeps passwords off the wire in clear, and a hostile registry from
// sending us to what only this machine can reach.
func (a *authorizer) checkRealm(realm string) error {
	u, err := url.Parse(realm)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("its token server %q is no address", bounded(realm))
	case u.Scheme != "https" && (u.Scheme != "http" || !a.to.clear(u.Host) || !a.to.plain):
		return fmt.Errorf("its token server is %q: %w", bounded(realm), errCleartext)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLinkLocalUnicast() && u.Hostname() != hostname(a.to.host) {
		return fmt.Errorf("its token server %q is a link-local address", bounded(realm))
	}
	return nil
}

// client for the token server. It takes no redirect to another host, as what is
// asked carries a password.
func (a *authorizer) client() *http.Client {
	// An endpoint without a name owns no URL: nothing is added to the requests.
	s := &session{to: &endpoint{base: a.to.base}, agent: a.agent, limits: a.limits, tries: a.limits.tries}
	return &http.Client{
		Transport: tokenTransport{s, a},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if first := via[0].URL; len(via) > 5 || req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
				return errors.New("the token server redirects to another host")
			}
			return nil
		},
	}
}

// tokenTransport bounds what a token server says, and reads its refusals.
type tokenTransport struct {
	session *session
	auth    *authorizer // whose lock is held
}

// RoundTrip implements [http.RoundTripper].
func (t tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.session.RoundTrip(r)
	if err != nil {
		return nil, (&endpoint{host: r.URL.Host}).fault(err) // not the registry is down
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // the status alone says enough
		return nil, t.auth.to.refusal(resp.StatusCode, resp.Header, bodyMessage(body), t.auth.sent)
	}
	resp.Body = &tokenBody{ReadCloser: resp.Body, left: maxToken}
	return resp, nil
}

// tokenBody is an error where it does not end in time.
type tokenBody struct {
	io.ReadCloser
	left int
}

// Read implements [io.Reader].
func (b *tokenBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("the token server sends too much")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// joinScopes merges what a request needs with what the registry asks for. A
// registry behind a path prefix or a proxy knows the repository by another name:
// its own then stands in for ours.
func joinScopes(need []string, asked string) []string {
	theirs := strings.Fields(asked)
	if len(theirs) == 0 || len(need) == 0 {
		return append(theirs, need...)
	}
	if slices.ContainsFunc(theirs, func(s string) bool { return scopeName(s) == scopeName(need[0]) }) {
		return union(need, theirs)
	}
	renamed := scopeName(theirs[0]) + strings.TrimPrefix(need[0], scopeName(need[0]))
	return union(append([]string{renamed}, need[1:]...), theirs[1:])
}

// scopeName is what a scope is about: "repository:library/alpine".
func scopeName(scope string) string {
	return scope[:max(strings.LastIndexByte(scope, ':'), 0)]
}

// union of a, which wins where both name the same thing, and b.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.ContainsFunc(all, func(t string) bool { return scopeName(t) == scopeName(s) }) {
			all = append(all, s)
		}
	}
	return all
}
