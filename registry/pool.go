package registry

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// errCleartext is why a request with credentials was not sent.
var errCleartext = errors.New("refusing to send credentials without encryption")

// pools makes the pools of connections for the endpoints of one registry.
type pools struct {
	dial   time.Duration
	answer time.Duration
	trust  bool // any certificate is accepted
	tuned  bool
	hosts  []*endpoint

	once   sync.Once
	common http.RoundTripper
}

// shared is one pool for hosts without any configuration.
func (p *pools) shared(l limits) http.RoundTripper {
	p.once.Do(func() {
		p.dial, p.answer = l.dial, l.answer
		client := http.Client{Transport: docker.DefaultHTTPTransport(nil)}
		_ = p.tune(&client) // it never fails
		p.common = client.Transport
	})
	return p.common
}

// tune is called for the transport that all others are cloned from, then for
// each clone: only the first call sets values, as a clone may have a
// dial_timeout of its own.
func (p *pools) tune(client *http.Client) error {
	t, ok := client.Transport.(*http.Transport)
	if !ok {
		return nil
	}
	if !p.tuned {
		p.tuned = true
		t.DialContext = (&net.Dialer{Timeout: p.dial, KeepAlive: 30 * time.Second}).DialContext
		t.TLSHandshakeTimeout = p.dial
		t.ResponseHeaderTimeout = p.answer
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 64, 32 // a large layer comes over many, piece after piece
		t.MaxResponseHeaderBytes = maxHeader
		t.DisableCompression = true // a layer kept with an encoding would come back as other bytes
		t.ReadBufferSize, t.WriteBufferSize = 64<<10, 64<<10
	}
	if p.trust && t.TLSClientConfig != nil {
		t.TLSClientConfig.InsecureSkipVerify = true
	}
	client.Transport = &pool{transport: t, of: p}
	return nil
}

// allow lets e's plain HTTP, if it has any, through.
func (p *pools) allow(e *endpoint) { p.hosts = append(p.hosts, e) }

// pool is the last stop before the wire. It sees the scheme that is really used,
// after any fallback from TLS, and keeps passwords off lines that are not theirs.
type pool struct {
	transport *http.Transport
	of        *pools
}

// RoundTrip implements [http.RoundTripper].
func (p *pool) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && carriesCredentials(r) && !p.of.mayBeClear(r.URL.Host) {
		closeBody(r)
		return nil, fmt.Errorf("%w to %s", errCleartext, r.URL.Host)
	}
	return p.transport.RoundTrip(r)
}

func (p *pools) mayBeClear(host string) bool {
	for _, e := range p.hosts {
		if e.clear(host) {
			return true
		}
	}
	return isLoopback(host)
}

// carriesCredentials: registries are asked with a header, token servers with a
// header or, for identity tokens, a form.
func carriesCredentials(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" ||
		r.Method == http.MethodPost && r.Header.Get("Content-Type") == formType
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // a RoundTripper closes it, also when it sends nothing
	}
}
