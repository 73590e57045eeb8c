// Package testreg is a registry inside the process, with whatever a real one
// may put in the way: TLS by an unknown authority, passwords, tokens, errors,
// blobs that end early or are not what they should be, and slowness.
package testreg

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Options of a registry. The zero value is plain HTTP, open to everyone, without faults.
type Options struct {
	TLS      bool           // serve HTTPS with a certificate of an authority of its own
	Client   bool           // ... to those who show a certificate of that authority
	External bool           // listen on the address that [External] has, not on loopback
	Auth     string         // "", "basic" or "token"
	User     string         // who may come in
	Password string         //
	Life     time.Duration  // of a token, whatever is promised; 0: five minutes
	Realm    string         // where tokens are said to be had; "": at this registry
	Redirect string         // "SCHEME://HOST" that blobs are redirected to
	Faults   map[string]int // how often each fault strikes, see faults.go; -1: always
	Rate     int            // bytes a second that a blob comes at; 0: as fast as it goes
	Behind   string         // the address of a registry that has the content; "": this one has it
	Manners  []string       // what it does otherwise than most, see manners.go
	Apart    bool           // repositories do not share their blobs, but by mounts
}

// Registry is a running registry.
type Registry struct {
	front, back *httptest.Server
	ca          []byte
	client      [2][]byte // certificate and key
	options     Options
	mu          sync.Mutex
	log         []string
	shown       []string // requests with credentials
	sent        int64    // bytes of blobs
	received    int64    // ... that were uploaded
	tokens      map[string]time.Time
}

// Start runs a registry on a free port, of the loopback interface if o does not
// say otherwise, until Close.
func Start(o Options) (*Registry, error) {
	r := &Registry{options: o}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	if o.Behind != "" {
		store = behind(o.Behind)
	}
	if o.Apart {
		store = &apart{next: store}
	}
	mannered, err := r.mannered(r.guarded(r.faulty(store)))
	if err != nil {
		return nil, err
	}
	r.back = httptest.NewServer(store)
	r.front = httptest.NewUnstartedServer(r.logged(mannered))
	r.front.Config.ErrorLog = log.New(io.Discard, "", 0)
	if o.External {
		if err := listenOutside(r.front); err != nil {
			r.back.Close()
			return nil, err
		}
	}
	if !o.TLS {
		r.front.Start()
		return r, nil
	}
	if err := r.startTLS(); err != nil {
		r.back.Close()
		return nil, err
	}
	return r, nil
}

// Close ends the registry; requests under way are cut off.
func (r *Registry) Close() {
	r.front.CloseClientConnections()
	r.front.Close()
	r.back.Close()
}

// Addr is "127.0.0.1:PORT", as it stands in an image's name.
func (r *Registry) Addr() string { return r.front.Listener.Addr().String() }

// CA is the certificate, in PEM, of the authority that a client has to trust; nil without TLS.
func (r *Registry) CA() []byte { return r.ca }

// Requests returns "METHOD PATH" of every request so far.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.log...)
}

// Put stores an image or an index under repo:tag, around passwords and faults.
func (r *Registry) Put(repoTag string, what remote.Taggable) error {
	ref, err := name.ParseReference(strings.TrimPrefix(r.back.URL, "http://")+"/"+repoTag, name.Insecure)
	if err != nil {
		return err
	}
	switch what := what.(type) {
	case v1.ImageIndex:
		return remote.WriteIndex(ref, what)
	case v1.Image:
		return remote.Write(ref, what)
	}
	return fmt.Errorf("a %T is neither image nor index", what)
}

// Digest is what repo:tag points at now, asked around passwords and faults.
func (r *Registry) Digest(repoTag string) (v1.Hash, error) {
	ref, err := name.ParseReference(strings.TrimPrefix(r.back.URL, "http://")+"/"+repoTag, name.Insecure)
	if err != nil {
		return v1.Hash{}, err
	}
	d, err := remote.Head(ref)
	if err != nil {
		return v1.Hash{}, err
	}
	return d.Digest, nil
}

func (r *Registry) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.log = append(r.log, req.Method+" "+req.URL.Path)
		for _, key := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
			if req.Header.Get(key) != "" {
				r.shown = append(r.shown, req.Method+" "+req.URL.Path+" "+key)
			}
		}
		r.mu.Unlock()
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			w = counting{w, r}
		}
		if req.Method != http.MethodGet && strings.Contains(req.URL.Path, "/blobs/uploads/") {
			req.Body = incoming{req.Body, r}
		}
		next.ServeHTTP(w, req)
	})
}

// Sent is how many bytes of blobs were sent so far.
func (r *Registry) Sent() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}

// Shown returns "METHOD PATH HEADER" of every request with a header that holds credentials.
func (r *Registry) Shown() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.shown...)
}

// counting counts what is written.
type counting struct {
	http.ResponseWriter
	of *Registry
}

// Write implements [io.Writer].
func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.sent += int64(n)
	return n, err
}

// Unwrap is for [http.ResponseController].
func (c counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }
