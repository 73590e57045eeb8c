package testreg

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
)

// HubOptions say what a [Hub] has.
type HubOptions struct {
	Search  []byte   // the body of every answer to /v1/search; nil: there is no such thing
	Catalog []string // the repositories of /v2/_catalog; nil: there is no such thing
	Page    int      // repositories a page; 0: all
	Endless bool     // no list has a last page
	Tags    []string // of every repository; nil: there is none
}

// Hub stands in for what else than images a registry may serve: a search, a
// catalog. As a proxy it writes down who is to be connected, and refuses.
type Hub struct {
	server  *httptest.Server
	options HubOptions
	mu      sync.Mutex
	log     []string
}

// StartHub runs a hub on a free port of the loopback interface until Close.
func StartHub(o HubOptions) *Hub {
	h := &Hub{options: o}
	h.server = httptest.NewServer(h)
	return h
}

// Close ends the hub.
func (h *Hub) Close() { h.server.Close() }

// Addr is "127.0.0.1:PORT".
func (h *Hub) Addr() string { return h.server.Listener.Addr().String() }

// Requests returns "METHOD TARGET" of every request so far, with the query, and
// " with a password" where there was one.
func (h *Hub) Requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.log...)
}

// ServeHTTP implements [http.Handler].
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.Method + " " + r.RequestURI
	if r.Header.Get("Authorization") != "" {
		line += " with a password"
	}
	h.mu.Lock()
	h.log = append(h.log, line)
	h.mu.Unlock()
	switch {
	case r.Method == http.MethodConnect:
		http.Error(w, "this proxy leads nowhere", http.StatusForbidden)
	case r.URL.Path == "/v1/search" && h.options.Search != nil:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(h.options.Search)
	case r.URL.Path == "/v2/_catalog" && h.options.Catalog != nil:
		h.list(w, r, "repositories", h.options.Catalog)
	case strings.HasSuffix(r.URL.Path, "/tags/list") && h.options.Tags != nil:
		h.list(w, r, "tags", h.options.Tags)
	case r.URL.Path == "/v2/":
		w.WriteHeader(http.StatusOK)
	default:
		http.NotFound(w, r)
	}
}

// list answers a page at a time, as distribution does: "last" is where the one
// before ended.
func (h *Hub) list(w http.ResponseWriter, r *http.Request, key string, all []string) {
	from, _ := strconv.Atoi(r.URL.Query().Get("last"))
	rest := all[min(max(from, 0), len(all)):]
	if h.options.Endless {
		rest = all
	}
	page := h.options.Page
	if page == 0 {
		page = len(rest)
	}
	w.Header().Set("Content-Type", "application/json")
	if len(rest) > page || h.options.Endless {
		w.Header().Set("Link", fmt.Sprintf(`<%s?last=%d&n=%d>; rel="next"`, r.URL.Path, from+page, page))
	}
	quoted := make([]string, min(page, len(rest)))
	for i := range quoted {
		quoted[i] = strconv.Quote(rest[i])
	}
	fmt.Fprintf(w, `{%q: [%s]}`, key, strings.Join(quoted, ","))
}
