package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	hostconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
)

// dockerHub is how names spell the registry that a name without a host means.
const dockerHub = "docker.io"

// endpoint is one host that serves the repositories of a registry.
type endpoint struct {
	name   string // the registry as names spell it: "docker.io"
	host   string // who is dialled: "registry-1.docker.io", "mirror.corp:5000"
	scheme string
	path   string // of the API: "/v2", or below a prefix
	dir    string // the certs.d folder it is configured in; "" if there is none
	can    docker.HostCapabilities
	header http.Header
	base   http.RoundTripper // the pool of connections, with this host's certificates
	plain  bool              // plain HTTP is allowed: it is configured so, or this machine
	alone  bool              // no other host serves the registry: this one is it, under any name

	out    outage
	taking taking

	excluded *exclusion // what it is never asked for; nil: nothing
}

// url of something below the API: "library/alpine/tags/list".
func (e *endpoint) url(path string) *url.URL {
	return &url.URL{Scheme: e.scheme, Host: e.host, Path: strings.TrimSuffix(e.path, "/") + "/" + path}
}

// clear reports whether a password may go to host, a name with or without a
// port, without encryption.
func (e *endpoint) clear(host string) bool {
	return isLoopback(host) || e.plain && hostname(host) == hostname(e.host)
}

// account is what people know the endpoint as: the name to log in to.
func (e *endpoint) account() string {
	if e.alone {
		return e.name
	}
	return accountOf(e.host)
}

// accounts are the names that credentials for the endpoint may be kept under. A
// registry's own are not for its mirrors and fallbacks, which may be anybody's.
func (e *endpoint) accounts() []string {
	if e.alone && e.name != accountOf(e.host) {
		return []string{e.name, accountOf(e.host)}
	}
	return []string{accountOf(e.host)}
}

// accountOf folds the hosts of Docker Hub into the name people log in to.
func accountOf(host string) string {
	switch host {
	case "registry-1.docker.io", "index.docker.io", "registry.hub.docker.com":
		return dockerHub
	}
	return host
}

// hostTable remembers the endpoints of each registry, so that there is one pool
// of connections a host.
type hostTable struct {
	mu    sync.Mutex
	known map[string][]*endpoint
}

// endpoints of the registry that names spell name, in the order to try them; the
// registry's own host is the last one. Every one of them can do what caps says,
// and may be asked for repo.
func (c *Client) endpoints(ctx context.Context, name, repo string, caps docker.HostCapabilities) ([]*endpoint, error) {
	all, err := c.allEndpoints(ctx, name)
	if err != nil {
		return nil, err
	}
	var fit []*endpoint
	excluded := false
	for _, e := range all {
		switch {
		case !e.can.Has(caps):
		case e.mayServe(repo):
			fit = append(fit, e)
		default:
			excluded = true
		}
	}
	switch {
	case len(fit) == 0 && excluded:
		return nil, fmt.Errorf("the configuration of registry %s excludes %q from every host that could %s it", name, repo, capabilityNames(caps))
	case len(fit) == 0:
		return nil, fmt.Errorf("no host of registry %s is configured to %s", name, capabilityNames(caps))
	}
	return fit, nil
}

// noticeExcluded tells that a host was not asked for what the others lack.
func (c *Client) noticeExcluded(ctx context.Context, ref reference.Named) {
	all, err := c.allEndpoints(ctx, reference.Domain(ref))
	if err != nil {
		return
	}
	for _, e := range all {
		if !e.mayServe(reference.Path(ref)) {
			c.notice("excluded "+ref.Name(), fmt.Sprintf("%s was not asked for %s: its configuration excludes that",
				e.account(), reference.FamiliarName(ref)))
		}
	}
}

func capabilityNames(caps docker.HostCapabilities) string {
	switch {
	case caps.Has(docker.HostCapabilityPush):
		return "push"
	case caps.Has(docker.HostCapabilityResolve):
		return "resolve"
	}
	return "pull"
}

func (c *Client) allEndpoints(ctx context.Context, name string) ([]*endpoint, error) {
	c.hosts.mu.Lock()
	defer c.hosts.mu.Unlock()
	if known, ok := c.hosts.known[name]; ok {
		return known, nil
	}
	found, err := c.configure(ctx, name)
	if err != nil {
		return nil, err
	}
	if c.hosts.known == nil {
		c.hosts.known = make(map[string][]*endpoint)
	}
	c.hosts.known[name] = found
	return found, nil
}

// configure reads the certs.d folder of a registry. The parser is containerd's;
// it logs a hosts.toml that it cannot read and goes on without, which is an
// error here.
func (c *Client) configure(ctx context.Context, name string) ([]*endpoint, error) {
	var complaint logHook
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.AddHook(&complaint)
	pools := &pools{dial: c.limits.dial, answer: c.limits.answer, trust: c.config.Insecure}
	dir, err := findHostDir(c.config.HostsDirs, name)
	if err != nil {
		return nil, fmt.Errorf("registry %s: reading its configuration: %w", name, err)
	}
	hosts, err := hostconfig.ConfigureHosts(log.WithLogger(ctx, logrus.NewEntry(logger)), hostconfig.HostOptions{
		HostDir:      func(string) (string, error) { return dir, nil },
		UpdateClient: pools.tune,
	})(name)
	if err == nil {
		err = complaint.err
	}
	if err != nil {
		return nil, fmt.Errorf("registry %s: configuration in %q: %w", name, dir, err)
	}
	found := make([]*endpoint, len(hosts))
	for i, h := range hosts {
		if c.config.Insecure {
			h = orPlain(h)
		}
		found[i] = newEndpoint(name, h)
		found[i].alone, found[i].dir = len(hosts) == 1, dir
		pools.allow(found[i])
	}
	if err := readExclusions(dir, found); err != nil {
		return nil, fmt.Errorf("registry %s: configuration in %q: %w", name, dir, err)
	}
	return found, nil
}

// orPlain is h, but spoken to in plain HTTP where it does not answer in TLS.
func orPlain(h docker.RegistryHost) docker.RegistryHost {
	if _, onlyTLS := h.Client.Transport.(*pool); onlyTLS && h.Scheme == "https" {
		client := *h.Client
		client.Transport = docker.NewHTTPFallback(h.Client.Transport)
		h.Client = &client
	}
	return h
}

func newEndpoint(name string, h docker.RegistryHost) *endpoint {
	e := &endpoint{
		name: name, host: h.Host, scheme: h.Scheme, path: h.Path, can: h.Capabilities,
		header: h.Header, base: h.Client.Transport,
	}
	// Where TLS comes first and plain HTTP second, the parser wraps the pool.
	_, onlyTLS := e.base.(*pool)
	e.plain = e.scheme == "http" || !onlyTLS
	return e
}

// findHostDir looks for the folder of a host, in all roots before it settles for
// a _default, so that one root's default does not hide another's host. It is ""
// where there is none.
func findHostDir(roots []string, host string) (string, error) {
	fallback := ""
	for _, root := range roots {
		dir, err := hostconfig.HostDirFromRoot(root)(host)
		switch {
		case errdefs.IsNotFound(err):
		case err != nil:
			return "", err
		case filepath.Base(dir) != "_default":
			return dir, nil
		case fallback == "":
			fallback = dir
		}
	}
	return fallback, nil
}

// logHook keeps the first error that is logged.
type logHook struct{ err error }

func (h *logHook) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

func (h *logHook) Fire(e *logrus.Entry) error {
	cause, ok := e.Data[logrus.ErrorKey].(error)
	if !ok {
		cause = errors.New(e.Message)
	}
	h.err = cmp.Or(h.err, cause)
	return nil
}

// hostname of "host", "host:port", "[::1]:port" or "::1".
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// isLoopback reports whether host, with or without a port, is this machine: what
// is sent there passes no wire.
func isLoopback(host string) bool {
	h := hostname(host)
	if h == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(h)
	return err == nil && ip.Unmap().IsLoopback()
}
