package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// keychain has logins by host.
type keychain map[string]authn.AuthConfig

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if a, ok := k[r.RegistryStr()]; ok {
		return authn.FromConfig(a), nil
	}
	return authn.Anonymous, nil
}

// basicAuth guards f with the user u and the password secret, and then asks next.
func basicAuth(f *fake, next func(http.ResponseWriter, *http.Request) bool) {
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); !ok || u != "u" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return next != nil && next(w, r)
	})
}

// tokenServer gives tokens that name what they are for, and guards a fake with them.
type tokenServer struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	uses     atomic.Int32 // requests that a token is good for
}

func newTokenServer(t *testing.T, f *fake, user, password, refresh string) *tokenServer {
	t.Helper()
	s := &tokenServer{}
	s.uses.Store(1000)
	valid := map[string]int32{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, r)
		u, p, _ := r.BasicAuth()
		if user != "" && (u != user || p != password) && (refresh == "" || r.Form.Get("refresh_token") != refresh) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"details":"incorrect username or password"}`)
			return
		}
		token := fmt.Sprintf("%d-%s", len(s.requests), strings.Join(r.Form["scope"], " "))
		valid[token] = s.uses.Load()
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
	}))
	t.Cleanup(s.Close)
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		need := "pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			need = "push"
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		valid[token]--
		ok := valid[token] >= 0 && (r.URL.Path == "/v2/" || strings.Contains(token, need))
		s.mu.Unlock()
		if ok {
			return false
		}
		challenge := `Bearer realm="` + s.URL + `/token",service="the service"`
		if repo, _, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/"); found {
			challenge += `,scope="repository:` + repo + `:` + need + `"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	return s
}

func TestTokenAuth(t *testing.T) {
	f := newFake(t)
	s := newTokenServer(t, f, "u", "secret", "")
	m := newImage(1, 1000, 2000, 3000)
	ref := f.ref(t, "team/app:1")

	c := newClient(Config{Keychain: keychain{f.host(): {Username: "u", Password: "secret"}}})
	mustPush(t, c, ref, m)
	mustHold(t, c, ref, m)
	for _, r := range s.requests {
		if r.Form.Get("service") != "the service" || !strings.HasPrefix(r.Form.Get("scope"), "repository:team/app:pu") {
			t.Errorf("token server was asked for %v", r.Form)
		}
	}
	if len(s.requests) > 3 {
		t.Errorf("%d tokens were fetched for one push and one pull", len(s.requests))
	}

	// Tokens that are soon no good: a new one each time.
	s.uses.Store(2)
	c = newClient(Config{Keychain: keychain{f.host(): {Username: "u", Password: "secret"}}})
	mustHold(t, c, ref, m)
	s.uses.Store(1000)

	// Nobody, and somebody else.
	var denied *UnauthorizedError
	_, err := newClient(Config{}).Get(t.Context(), ref)
	if !errors.As(err, &denied) || denied.CredentialsSent || denied.Host != f.host() {
		t.Errorf("without credentials: %v (%+v)", err, denied)
	}
	c = newClient(Config{Keychain: keychain{f.host(): {Username: "u", Password: "wrong"}}})
	_, err = c.Get(t.Context(), ref)
	if !errors.As(err, &denied) || !denied.CredentialsSent || !strings.Contains(err.Error(), "incorrect username or password") {
		t.Errorf("with wrong credentials: %v", err)
	}
	if err := c.Push(t.Context(), ref, newImage(5, 1)); !errors.As(err, &denied) || !denied.CredentialsSent {
		t.Errorf("push with wrong credentials: %v", err)
	}
}

// What is wrong with a token server is said of it, once.
func TestTokenServerFaults(t *testing.T) {
	f := newFake(t)
	m := newImage(1, 10)
	mustPush(t, newClient(Config{}), f.ref(t, "app"), m)
	guard := func(realm string) {
		f.on(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "Bearer good" {
				return false
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
	}
	var answers []func(w http.ResponseWriter, r *http.Request)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		answer(w, r)
	}))
	defer s.Close()
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	body := func(format string, args ...any) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, format, args...) }
	}
	good := body(`{"token":"good"}`)
	here := "registry " + f.host() + ": "
	for name, test := range map[string]struct {
		realm   string
		answers []func(http.ResponseWriter, *http.Request)
		want    string
	}{
		"busy":          {s.URL, []func(http.ResponseWriter, *http.Request){status(503), status(429), good}, ""},
		"down":          {s.URL, []func(http.ResponseWriter, *http.Request){status(500)}, "registry " + f.host() + " answers with status 500"},
		"no token":      {s.URL, []func(http.ResponseWriter, *http.Request){body(`{}`)}, here + "authorization server did not include a token in the response"},
		"other token":   {s.URL, []func(http.ResponseWriter, *http.Request){body(`{"token":"bad"}`)}, `registry ` + f.host() + ` denies access to "` + f.host() + `/app:latest"`},
		"huge":          {s.URL, []func(http.ResponseWriter, *http.Request){body(`{"token":"%s"}`, strings.Repeat("x", maxToken))}, here + "unable to decode token response: the token server sends too much"},
		"redirects":     {s.URL, []func(http.ResponseWriter, *http.Request){func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, f.URL, http.StatusTemporaryRedirect) }}, here + "the token server redirects to another host"},
		"unreachable":   {"http://127.0.0.1:1/token", nil, "registry 127.0.0.1:1 is unreachable: connection refused"},
		"not encrypted": {"http://auth.corp/token", nil, here + `its token server is "http://auth.corp/token": refusing to send credentials without encryption`},
	} {
		t.Run(name, func(t *testing.T) {
			guard(test.realm)
			answers = test.answers
			_, err := newClient(Config{}).Get(t.Context(), f.ref(t, "app"))
			if got := fmt.Sprint(err); test.want == "" && err != nil || test.want != "" && got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestIdentityToken(t *testing.T) {
	f := newFake(t)
	s := newTokenServer(t, f, "u", "secret", "long-lived")
	c := newClient(Config{Keychain: keychain{f.host(): {IdentityToken: "long-lived"}}})
	m := newImage(1, 10)
	mustPush(t, c, f.ref(t, "app"), m)
	if r := s.requests[0]; r.Method != http.MethodPost || r.Form.Get("grant_type") != "refresh_token" {
		t.Errorf("identity token was sent by %s as %v", r.Method, r.Form)
	}
}

func TestBasicAuth(t *testing.T) {
	f := newFake(t)
	basicAuth(f, nil)
	c := newClient(Config{Keychain: keychain{f.host(): {Username: "u", Password: "secret"}}})
	m := newImage(1, 1000)
	mustPush(t, c, f.ref(t, "app"), m)
	mustHold(t, c, f.ref(t, "app"), m)
}

func TestCheckLogin(t *testing.T) {
	basic, token, open := newFake(t), newFake(t), newFake(t)
	basicAuth(basic, nil)
	s := newTokenServer(t, token, "u", "secret", "")
	c := newClient(Config{})
	for _, f := range []*fake{basic, token, open} {
		if err := c.CheckLogin(t.Context(), f.host(), authn.AuthConfig{Username: "u", Password: "secret"}); err != nil {
			t.Errorf("right credentials: %v", err)
		}
	}
	before := len(s.requests)
	for _, f := range []*fake{basic, token} {
		err := c.CheckLogin(t.Context(), "http://"+f.host()+"/v2/", authn.AuthConfig{Username: "u", Password: "wrong"})
		var denied *UnauthorizedError
		if !errors.As(err, &denied) || !denied.CredentialsSent || denied.Host != f.host() {
			t.Errorf("wrong credentials: %v", err)
		}
	}
	if n := len(s.requests) - before; n != 1 {
		t.Errorf("one wrong login was sent %d times: servers count them", n)
	}
	open.on(func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true })
	if err := c.CheckLogin(t.Context(), open.host(), authn.AuthConfig{}); err == nil || !strings.Contains(err.Error(), "no registry") {
		t.Errorf("a web server: %v", err)
	}
	if err := c.CheckLogin(t.Context(), "../etc", authn.AuthConfig{}); err == nil {
		t.Error("a path is no registry")
	}
}

// Each host of a registry is asked once, and says for itself what is wrong.
func TestReach(t *testing.T) {
	open, closed := newFake(t), newFake(t)
	basicAuth(closed, nil)
	c := newClient(Config{})
	found, err := c.Reach(t.Context(), open.host())
	if err != nil || len(found) != 1 || found[0].Err != nil || found[0].Host != open.host() || found[0].Took <= 0 {
		t.Errorf("a registry: %+v, %v", found, err)
	}
	found, err = c.Reach(t.Context(), closed.host())
	if err != nil || len(found) != 1 || !errors.As(found[0].Err, new(*UnauthorizedError)) {
		t.Errorf("without a login: %+v, %v", found, err)
	}
	open.on(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	if found, err = c.Reach(t.Context(), open.host()); err != nil || found[0].Err == nil {
		t.Errorf("a broken registry: %+v, %v", found, err)
	}
	if n := len(open.asked("GET", "")); n != 1 { // since it is broken
		t.Errorf("it was asked %d times", n)
	}
	if _, err := c.Reach(t.Context(), "../etc"); err == nil {
		t.Error("a path is no registry")
	}
}

// A password must not go in clear to a host that is not this machine, whatever
// the registry says.
func TestPasswordsStayEncrypted(t *testing.T) {
	for _, test := range []struct{ endpoint, realm string }{
		{"https://registry.corp", "http://registry.corp/token"},
		{"https://registry.corp", "http://auth.corp/token"},
		{"http://registry.corp:5000", "http://auth.corp/token"},
		{"http://localhost:5000", "http://auth.corp/token"},
		{"https://registry.corp", "https://169.254.169.254/latest/meta-data"},
		{"https://registry.corp", "ftp://registry.corp/token"},
		{"https://registry.corp", "/token"},
		{"https://registry.corp", "\x1b[31m"},
	} {
		scheme, host, _ := strings.Cut(test.endpoint, "://")
		a := &authorizer{to: &endpoint{host: host, scheme: scheme, plain: scheme == "http"}}
		if err := a.checkRealm(test.realm); err == nil || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%s may send its password to %q: %v", test.endpoint, test.realm, err)
		}
	}
	for _, test := range []struct{ endpoint, realm string }{
		{"https://registry.corp", "https://auth.corp/token"},
		{"https://10.0.0.5:5000", "https://10.0.0.5/jwt/auth"}, // GitLab
		{"http://registry.corp:5000", "http://registry.corp:5001/token"},
		{"http://localhost:5000", "http://127.0.0.1:5001/token"},
	} {
		scheme, host, _ := strings.Cut(test.endpoint, "://")
		a := &authorizer{to: &endpoint{host: host, scheme: scheme, plain: scheme == "http"}}
		if err := a.checkRealm(test.realm); err != nil {
			t.Errorf("%s: %v", test.endpoint, err)
		}
	}
}

func TestJoinScopes(t *testing.T) {
	for _, test := range []struct{ need, asked, want string }{
		{"repository:a:pull", "", "repository:a:pull"},
		{"", "registry:catalog:*", "registry:catalog:*"},
		{"repository:a:push,pull", "repository:a:pull", "repository:a:push,pull"},
		{"repository:a:push,pull repository:b:pull", "repository:a:pull repository:c:pull", "repository:a:push,pull repository:b:pull repository:c:pull"},
		{"repository:library/alpine:push,pull", "repository:proxy/library/alpine:pull", "repository:proxy/library/alpine:push,pull"},
	} {
		if got := strings.Join(joinScopes(strings.Fields(test.need), test.asked), " "); got != test.want {
			t.Errorf("need %q, asked %q: got %q, want %q", test.need, test.asked, got, test.want)
		}
	}
}
