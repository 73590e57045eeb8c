package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certsDir writes dir/<host>/<file> for each file.
func certsDir(t *testing.T, host string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, host), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, host, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// "Look in the private registry first, then in the official one" is two lines.
func TestFallback(t *testing.T) {
	private, official := newFake(t), newFake(t)
	m := newImage(1, 5000)
	mustPush(t, newClient(Config{}), official.ref(t, "team/app:1"), m)
	dir := certsDir(t, "registry.corp", map[string]string{"hosts.toml": fmt.Sprintf(
		"server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", official.URL, private.URL)})
	var notices []string
	config := Config{HostsDirs: []string{t.TempDir(), dir}, Notice: func(s string) { notices = append(notices, s) }}
	c := newClient(config)
	ref := mustRef(t, "registry.corp/team/app:1")
	mustHold(t, c, ref, m)
	mustHold(t, c, ref, m)
	want := fmt.Sprintf("registry.corp/team/app:1 comes from %s: %s does not have it", official.host(), private.host())
	if len(notices) != 1 || notices[0] != want {
		t.Errorf("notices %q, want one of %q", notices, want)
	}
	if n := len(private.asked("GET", "/blobs/")); n > 0 {
		t.Errorf("the host without the image was asked for %d of its blobs", n)
	}

	// What is pushed goes past the mirror, which then has it, and the other is not asked.
	mustPush(t, c, mustRef(t, "registry.corp/new:1"), m)
	if len(private.asked("PUT", "")) > 0 || len(official.asked("PUT", "/v2/new/manifests/1")) != 1 {
		t.Error("a host that may only pull was pushed to")
	}
	mustPush(t, newClient(Config{}), private.ref(t, "team/app:1"), m)
	official.on(nil)
	mustHold(t, newClient(config), ref, m)
	if n := len(official.asked("GET", "")); n > 0 {
		t.Errorf("the second host was asked %d times though the first has it", n)
	}

	// All of them lack it; none can be reached.
	var missing *NotFoundError
	if _, err := c.Get(t.Context(), mustRef(t, "registry.corp/none")); !errors.As(err, &missing) {
		t.Errorf("nobody has it: %v", err)
	}
	private.Close()
	notices = nil
	mustHold(t, newClient(config), ref, m)
	if len(notices) != 1 || !strings.Contains(notices[0], "failed (registry "+private.host()+" is unreachable: connection refused)") {
		t.Errorf("notices %q", notices)
	}
	var unreachable *UnreachableError
	if _, err := newClient(config).Get(t.Context(), mustRef(t, "registry.corp/none")); !errors.As(err, &unreachable) {
		t.Errorf("one lacks it, one is down: %v", err)
	}
}

// Each host gets its own credentials and no other's, and a push that does not go
// where its name says is noticed.
func TestMirrorCredentials(t *testing.T) {
	mirror, official := newFake(t), newFake(t)
	m := newImage(1, 10)
	mustPush(t, newClient(Config{}), official.ref(t, "app"), m)
	basicAuth(mirror, nil)
	basicAuth(official, nil)
	dir := certsDir(t, "registry.corp", map[string]string{"hosts.toml": fmt.Sprintf("server = %q\n[host.%q]\n", official.URL, mirror.URL)})
	login := keychain{official.host(): {Username: "u", Password: "secret"}, "registry.corp": {Username: "u", Password: "other"}}
	mustHold(t, newClient(Config{HostsDirs: []string{dir}, Keychain: login}), mustRef(t, "registry.corp/app"), m)
	for _, r := range mirror.asked("GET", "") {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the mirror was sent %q", r.Header.Get("Authorization"))
		}
	}

	// A registry that is only known by another name has the credentials of that.
	alias := certsDir(t, "registry.corp", map[string]string{"hosts.toml": fmt.Sprintf("server = %q\n", official.URL)})
	named := Config{HostsDirs: []string{alias}, Keychain: keychain{"registry.corp": {Username: "u", Password: "secret"}}}
	mustHold(t, newClient(named), mustRef(t, "registry.corp/app"), m)
	named.Keychain = nil
	var denied *UnauthorizedError
	if _, err := newClient(named).Get(t.Context(), mustRef(t, "registry.corp/app")); !errors.As(err, &denied) || denied.Host != "registry.corp" {
		t.Errorf("without credentials: %v", err)
	}
	// Logging in asks the registry of that name, not what it falls back to.
	back := certsDir(t, official.host(), map[string]string{"hosts.toml": fmt.Sprintf("server = %q\n[host.%q]\n", mirror.URL, official.URL)})
	mirror.on(nil)
	if err := newClient(Config{HostsDirs: []string{back}}).CheckLogin(t.Context(), official.host(), login[official.host()]); err != nil || len(mirror.log) > 0 {
		t.Errorf("login: %v, the fallback was asked %d times", err, len(mirror.log))
	}
	basicAuth(mirror, nil)

	login[mirror.host()] = login[official.host()]
	var notices []string
	c := newClient(Config{HostsDirs: []string{dir}, Keychain: login, Notice: func(msg string) { notices = append(notices, msg) }})
	mustPush(t, c, mustRef(t, "registry.corp/app:2"), m)
	if want := "pushing to " + mirror.host() + ", as the configuration of registry.corp has it"; len(notices) != 1 || notices[0] != want {
		t.Errorf("notices %q, want %q", notices, want)
	}
}

// A mirror that may not resolve is asked for digests, never for tags.
func TestMirrorThatOnlyPulls(t *testing.T) {
	mirror, official := newFake(t), newFake(t)
	m := newImage(1, 5000)
	for _, f := range []*fake{mirror, official} {
		mustPush(t, newClient(Config{}), f.ref(t, "app:1"), m)
		f.on(nil)
	}
	dir := certsDir(t, "_default", map[string]string{"hosts.toml": fmt.Sprintf(
		"server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", official.URL, mirror.URL)})
	mustHold(t, newClient(Config{HostsDirs: []string{dir}}), mustRef(t, "any.corp/app:1"), m)
	if len(mirror.asked("GET", "/manifests/1")) > 0 || len(mirror.asked("GET", "/blobs/")) != 2 || len(official.asked("GET", "/blobs/")) > 0 {
		t.Errorf("mirror was asked %d times for a tag and %d for blobs", len(mirror.asked("GET", "/manifests/1")), len(mirror.asked("GET", "/blobs/")))
	}
}

// An API below a path, with headers of its own, for pulls and pushes.
func TestPathPrefix(t *testing.T) {
	for _, prefix := range []string{"/some/proxy/v2", "/v2/proxy"} {
		inner := newHandler()
		f := newFake(t)
		f.registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Team") != "blue" || !strings.HasPrefix(r.URL.Path, prefix+"/") {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			r.URL.Path = "/v2" + strings.TrimPrefix(r.URL.Path, prefix)
			inner.ServeHTTP(relocated{w, prefix}, r)
		})
		dir := certsDir(t, "registry.corp_5000_", map[string]string{"hosts.toml": fmt.Sprintf(
			"server = %q\noverride_path = true\n[header]\nx-team = \"blue\"\n", f.URL+prefix)})
		c := newClient(Config{HostsDirs: []string{dir}})
		ref := mustRef(t, "registry.corp:5000/proxy/app:1")
		m := newImage(1, 5000)
		mustPush(t, c, ref, m)
		mustHold(t, c, ref, m)
		if tags, err := c.Tags(t.Context(), ref); err != nil || len(tags) != 1 {
			t.Errorf("tags %v, %v", tags, err)
		}
	}
}

// relocated puts a prefix in front of where a registry says to go on.
type relocated struct {
	http.ResponseWriter
	prefix string
}

func (r relocated) WriteHeader(code int) {
	if l := r.Header().Get("Location"); l != "" {
		r.Header().Set("Location", strings.Replace(l, "/v2", r.prefix, 1))
	}
	r.ResponseWriter.WriteHeader(code)
}

func TestBadHostsFile(t *testing.T) {
	for content, want := range map[string]string{
		"server = [":           "hosts.toml",
		`capabilities = ["x"]`: "unknown capability x",
		`ca = "/nowhere/ca"`:   "/nowhere/ca",
	} {
		dir := certsDir(t, "registry.corp", map[string]string{"hosts.toml": content})
		_, err := newClient(Config{HostsDirs: []string{dir}}).Get(t.Context(), mustRef(t, "registry.corp/app"))
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "registry.corp")) && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
	dir := certsDir(t, "registry.corp", map[string]string{"hosts.toml": "server = \"https://registry.corp\"\ncapabilities = [\"pull\", \"resolve\"]\n"})
	err := newClient(Config{HostsDirs: []string{dir}}).Push(t.Context(), mustRef(t, "registry.corp/app"), newImage(1))
	if err == nil || !strings.Contains(err.Error(), "no host of registry registry.corp is configured to push") {
		t.Errorf("push to a registry for pulls: %v", err)
	}
}

// authority signs certificates for 127.0.0.1 and registry.corp.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "someone"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		DNSNames: []string{"registry.corp"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// newTLSFake serves with a certificate of a; clients, if not nil, must show one of theirs.
func newTLSFake(t *testing.T, a, clients *authority, until time.Time) *fake {
	t.Helper()
	cert, key := a.issue(t, until)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	f := newHandler()
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = discardLog()
	f.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != nil {
		f.TLS.ClientAuth, f.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		f.TLS.ClientCAs.AddCert(clients.cert)
	}
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

// A CA and a client certificate in docker's layout, and in hosts.toml. The names
// lead to this machine by hosts.toml's server, so that nothing is loopback to the
// one who checks.
func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	cert, key := other.issue(t, later)
	m := newImage(1, 3000)

	f := newTLSFake(t, ca, other, later)
	docker := certsDir(t, f.host(), map[string]string{"ca.crt": ca.pem, "client.cert": cert, "client.key": key})
	toml := certsDir(t, "registry.corp", map[string]string{
		"hosts.toml": fmt.Sprintf("server = %q\nca = \"ca.pem\"\nclient = [[\"me.pem\", \"me.key\"]]\n", f.URL),
		"ca.pem":     ca.pem, "me.pem": cert, "me.key": key,
	})
	skip := certsDir(t, "registry.corp", map[string]string{
		"hosts.toml": fmt.Sprintf("server = %q\nskip_verify = true\nclient = [[\"me.pem\", \"me.key\"]]\n", f.URL),
		"me.pem":     cert, "me.key": key,
	})
	mustPush(t, newClient(Config{HostsDirs: []string{docker}}), f.ref(t, "app:1"), m)
	mustHold(t, newClient(Config{HostsDirs: []string{docker}}), f.ref(t, "app:1"), m)
	mustHold(t, newClient(Config{HostsDirs: []string{toml}}), mustRef(t, "registry.corp/app:1"), m)
	mustHold(t, newClient(Config{HostsDirs: []string{skip}}), mustRef(t, "registry.corp/app:1"), m)

	for name, test := range map[string]struct {
		server *fake
		files  map[string]string
		want   string
	}{
		"unknown authority":     {newTLSFake(t, ca, nil, later), nil, "signed by an unknown authority"},
		"expired":               {newTLSFake(t, ca, nil, time.Now().Add(-time.Minute)), map[string]string{"ca.pem": ca.pem}, "expired"},
		"no client certificate": {f, map[string]string{"ca.pem": ca.pem}, "certificate required"},
		"plain HTTP":            {newFake(t), map[string]string{"ca.pem": ca.pem}, "answers in plain HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			config := fmt.Sprintf("server = %q\n", "https://"+test.server.host())
			if test.files != nil {
				config += "ca = \"ca.pem\"\n"
			}
			dir := certsDir(t, "registry.corp", test.files)
			if err := os.WriteFile(filepath.Join(dir, "registry.corp", "hosts.toml"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := newClient(Config{HostsDirs: []string{dir}}).Get(t.Context(), mustRef(t, "registry.corp/app:1"))
			var untrusted *TLSError
			if !errors.As(err, &untrusted) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %T %v, want a TLSError with %q", err, err, test.want)
			}
		})
	}
}

// On this machine TLS is tried first and any certificate will do, as docker does it.
func TestLoopback(t *testing.T) {
	f := newTLSFake(t, newAuthority(t), nil, time.Now().Add(time.Hour))
	m := newImage(1, 10)
	mustPush(t, newClient(Config{}), f.ref(t, "app"), m)
	mustHold(t, newClient(Config{}), f.ref(t, "app"), m)
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.8.9.1:80": true, "::1": true, "[::1]:5000": true,
		"localhost.evil.com": false, "127.0.0.1.evil.com:5000": false, "10.0.0.1": false, "registry": false, "0.0.0.0": false,
	} {
		if isLoopback(host) != want {
			t.Errorf("isLoopback(%q) is %v", host, !want)
		}
	}
}

// The pool refuses what any layer above got wrong.
func TestNoCredentialsInClear(t *testing.T) {
	c := newClient(Config{})
	endpoints, err := c.allEndpoints(t.Context(), "registry.corp")
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry.corp/v2/", nil)
	req.Header.Set("Authorization", "Basic c2VjcmV0")
	if _, err := endpoints[0].base.RoundTrip(req); !errors.Is(err, errCleartext) { //nolint:bodyclose // there is none
		t.Errorf("got %v", err)
	}
}
