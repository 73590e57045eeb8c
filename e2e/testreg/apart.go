package testreg

import (
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
)

// apart keeps the blobs of repositories apart, as real registries do: what one has
// another gets by an upload or a mount.
type apart struct {
	next http.Handler

	mu   sync.Mutex
	held map[string]bool // "repo@digest"
}

// ServeHTTP implements [http.Handler].
func (a *apart) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	repo, rest, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/")
	if !ok {
		a.next.ServeHTTP(w, req)
		return
	}
	query := req.URL.Query()
	switch from := query.Get("from"); {
	case (req.Method == http.MethodGet || req.Method == http.MethodHead) && !a.has(repo, path.Base(rest)):
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
		return
	case req.Method == http.MethodPost && from != "" && a.has(from, query.Get("mount")):
		a.hold(repo, query.Get("mount"))
		w.Header().Set("Location", "/v2/"+repo+"/blobs/"+query.Get("mount"))
		w.WriteHeader(http.StatusCreated)
		return
	case req.Method == http.MethodPost && from != "":
		req = req.Clone(req.Context())
		req.URL.RawQuery = ""
	}
	seen := &statusOf{ResponseWriter: w}
	a.next.ServeHTTP(seen, req)
	if digest := query.Get("digest"); digest != "" && seen.status == http.StatusCreated {
		a.hold(repo, digest)
	}
}

func (a *apart) has(repo, digest string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[repo+"@"+digest]
}

func (a *apart) hold(repo, digest string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		a.held = map[string]bool{}
	}
	a.held[repo+"@"+digest] = true
}

// statusOf remembers the status of an answer.
type statusOf struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (s *statusOf) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (s *statusOf) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Received is how many bytes of blobs were uploaded so far.
func (r *Registry) Received() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.received
}

// incoming counts what is uploaded.
type incoming struct {
	io.ReadCloser
	of *Registry
}

// Read implements [io.Reader].
func (i incoming) Read(p []byte) (int, error) {
	n, err := i.ReadCloser.Read(p)
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	i.of.received += int64(n)
	return n, err
}
