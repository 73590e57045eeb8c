package testreg

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// faulty strikes GETs of blobs, each fault as often as Options.Faults says:
//
//	unavailable  503, once more it may work
//	busy         429 with Retry-After: 1
//	cut          the connection breaks after half of the blob
//	wrong        the right size, other bytes
//	gone         404
//	manifest     other bytes than the digest asked for (GET of a manifest by digest)
//	denied       403 to everything that writes
//
// Those of tricks.go are malice.
func (r *Registry) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		blob := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/sha256:")
		manifest := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/sha256:")
		writes := req.Method != http.MethodGet && req.Method != http.MethodHead
		switch {
		case r.tricked(w, req, next):
		case blob && r.options.Redirect != "":
			http.Redirect(w, req, r.options.Redirect+req.URL.Path, http.StatusTemporaryRedirect)
		case blob && r.strikes("unavailable"):
			http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"try again"}]}`, http.StatusServiceUnavailable)
		case blob && r.strikes("busy"):
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, http.StatusTooManyRequests)
		case blob && r.strikes("gone"):
			http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}`, http.StatusNotFound)
		case writes && r.strikes("denied"):
			http.Error(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, http.StatusForbidden)
		case blob && r.strikes("cut"):
			send(w, answer(next, req), func(body []byte) []byte { return body[:len(body)/2] })
			panic(http.ErrAbortHandler)
		case blob && r.strikes("wrong"), manifest && r.strikes("manifest"):
			send(w, answer(next, req), scramble)
		case blob && r.options.Rate > 0:
			r.trickle(w, answer(next, req))
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// strikes says whether a fault is due, and counts it.
func (r *Registry) strikes(fault string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.options.Faults[fault]
	if left > 0 {
		r.options.Faults[fault]--
	}
	return left != 0
}

// recorded is a response kept in memory.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *recorded) Header() http.Header         { return a.header }
func (a *recorded) WriteHeader(status int)      { a.status = status }
func (a *recorded) Write(p []byte) (int, error) { return a.body.Write(p) }

func answer(next http.Handler, req *http.Request) *recorded {
	a := &recorded{header: http.Header{}, status: http.StatusOK}
	next.ServeHTTP(a, req)
	return a
}

// send passes an answer on with another body; the length stays as announced.
func send(w http.ResponseWriter, a *recorded, change func([]byte) []byte) {
	body := change(bytes.Clone(a.body.Bytes()))
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

func scramble(body []byte) []byte {
	if len(body) > 0 {
		body[len(body)/2] ^= 0xff
	}
	return body
}

// trickle sends the body at Options.Rate, twenty pieces a second.
func (r *Registry) trickle(w http.ResponseWriter, a *recorded) {
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.WriteHeader(a.status)
	for body := a.body.Bytes(); len(body) > 0; {
		n := min(len(body), max(1, r.options.Rate/20))
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		body = body[n:]
		time.Sleep(50 * time.Millisecond)
	}
}
