package testreg

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
)

// A manner is what a registry, or what stands in front of it, does otherwise than
// most, without being wrong enough for its users to leave it.
type manner func(r *Registry, next http.Handler) http.Handler

// manners by their names:
//
//	nohead       405 to every HEAD
//	notfoundhead 404 to every HEAD
//	nodigest     manifests without Docker-Content-Digest
//	norange      ranges are ignored
//	range416     ranges are refused
//	nopatch      405 to PATCH: a blob comes in one PUT
//	noput        400 to a PUT with a blob in it: PATCH has to come first
//	onlychunks   400 to a PATCH without Content-Range, or to a PUT with a blob in it
//	length       411 to a body without Content-Length
//	nomount      202 to a mount, as if it were an upload
//	mount404     404 to a mount, mount405 and mount403 likewise
//	relative     upload addresses are relative, with a query
//	portless     upload addresses lack the port
//	moved        uploads have addresses outside of the API
//	status200    200 where 201 and 202 are meant
//	busy         the first request of each method is answered 429, with Retry-After
//	gateway      the first request of each method is answered 502, with a page
//	expiring     401 in the middle of the first upload, after half of it
//	cutting      the connection breaks in the middle of the first upload, after half of it
//	noreferrers  404 to the referrers API
//	notagdelete  405 to the deletion of a tag
//	nodelete     405 to every deletion
//	greedy       with a tag its manifest is deleted, and all tags of that
//	prefix       the API is below /team/prefix
func manners() map[string]manner {
	head := func(status int) manner {
		return refusing(status, func(req *http.Request) bool { return req.Method == http.MethodHead })
	}
	mount := func(status int) manner {
		return refusing(status, func(req *http.Request) bool { return req.URL.Query().Get("mount") != "" })
	}
	withBody := func(req *http.Request) bool {
		return uploads(req) && req.Method == http.MethodPut && req.ContentLength != 0
	}
	return map[string]manner{
		"nohead":       head(http.StatusMethodNotAllowed),
		"notfoundhead": head(http.StatusNotFound),
		"nodigest":     withoutDigest,
		"norange": func(_ *Registry, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				req.Header.Del("Range")
				next.ServeHTTP(w, req)
			})
		},
		"range416": refusing(http.StatusRequestedRangeNotSatisfiable, func(req *http.Request) bool { return req.Header.Get("Range") != "" }),
		"nopatch":  refusing(http.StatusMethodNotAllowed, func(req *http.Request) bool { return req.Method == http.MethodPatch }),
		"noput":    refusing(http.StatusBadRequest, withBody),
		"onlychunks": refusing(http.StatusBadRequest, func(req *http.Request) bool {
			return withBody(req) || req.Method == http.MethodPatch && req.Header.Get("Content-Range") == ""
		}),
		"length": refusing(http.StatusLengthRequired, func(req *http.Request) bool {
			return req.ContentLength < 0
		}),
		"nomount": func(_ *Registry, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Query().Get("mount") != "" {
					req.URL.RawQuery = ""
				}
				next.ServeHTTP(w, req)
			})
		},
		"mount403": mount(http.StatusForbidden), "mount404": mount(http.StatusNotFound), "mount405": mount(http.StatusMethodNotAllowed),
		"relative": moving(func(u *url.URL, _ *http.Request) string { return u.RequestURI() }),
		"portless": moving(func(u *url.URL, req *http.Request) string {
			host, _, _ := strings.Cut(req.Host, ":")
			return "http://" + host + u.RequestURI()
		}),
		"moved":     moved,
		"status200": always200,
		"busy": onceEach(func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}),
		"gateway":     onceEach(func(w http.ResponseWriter) { http.Error(w, "<html>502 Bad Gateway</html>", http.StatusBadGateway) }),
		"expiring":    halfway(func(r *Registry, w http.ResponseWriter) { r.forgetTokens(); refuse(w, r.challenge()) }),
		"cutting":     halfway(func(*Registry, http.ResponseWriter) { panic(http.ErrAbortHandler) }),
		"noreferrers": refusing(http.StatusNotFound, func(req *http.Request) bool { return strings.Contains(req.URL.Path, "/referrers/") }),
		"nodelete":    refusing(http.StatusMethodNotAllowed, func(req *http.Request) bool { return req.Method == http.MethodDelete }),
		"notagdelete": refusing(http.StatusMethodNotAllowed, func(req *http.Request) bool {
			return req.Method == http.MethodDelete && !strings.Contains(req.URL.Path, "/manifests/sha256:")
		}),
		"greedy": greedy,
		"prefix": prefixed,
	}
}

// mannered has the registry behave as options say; "most=BYTES" bounds a body,
// "least=BYTES" is what a chunk has to have that is not the last.
func (r *Registry) mannered(next http.Handler) (http.Handler, error) {
	known := manners()
	for _, name := range r.options.Manners {
		key, value, _ := strings.Cut(name, "=")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch m := known[key]; {
		case key == "most":
			next = refusing(http.StatusRequestEntityTooLarge, func(req *http.Request) bool { return req.ContentLength > n })(r, next)
		case key == "least":
			next = announcing(n, next)
		case m != nil:
			next = m(r, next)
		default:
			return nil, fmt.Errorf("no manner %q", name)
		}
	}
	return next, nil
}

// behind passes requests on to another registry, which sees the address that was
// asked for.
func behind(addr string) http.Handler {
	return &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: addr})
		p.Out.Host = p.In.Host
		p.SetXForwarded()
	}}
}

func uploads(req *http.Request) bool { return strings.Contains(req.URL.Path, "/blobs/uploads/") }

func refusing(status int, when func(*http.Request) bool) manner {
	return func(_ *Registry, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if when(req) {
				http.Error(w, `{"errors":[{"code":"UNSUPPORTED","message":"not here"}]}`, status)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

// changed lets change look at what is answered before it is.
type changed struct {
	http.ResponseWriter
	change func(h http.Header, status *int)
	done   bool
}

func (c *changed) WriteHeader(status int) {
	if !c.done {
		c.done = true
		c.change(c.Header(), &status)
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *changed) Write(p []byte) (int, error) {
	if !c.done {
		c.WriteHeader(http.StatusOK)
	}
	return c.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (c *changed) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func changing(next http.Handler, change func(req *http.Request, h http.Header, status *int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := &changed{ResponseWriter: w, change: func(h http.Header, status *int) { change(req, h, status) }}
		next.ServeHTTP(c, req)
	})
}

func withoutDigest(_ *Registry, next http.Handler) http.Handler {
	return changing(next, func(req *http.Request, h http.Header, _ *int) {
		if strings.Contains(req.URL.Path, "/manifests/") {
			h.Del("Docker-Content-Digest")
		}
	})
}

func always200(_ *Registry, next http.Handler) http.Handler {
	return changing(next, func(req *http.Request, _ http.Header, status *int) {
		if *status/100 == 2 && *status != http.StatusPartialContent && req.URL.Query().Get("mount") == "" {
			*status = http.StatusOK
		}
	})
}

// announcing the least length of a chunk, and holding clients to it.
func announcing(n int64, next http.Handler) http.Handler {
	next = changing(next, func(req *http.Request, h http.Header, _ *int) {
		if uploads(req) && req.Method == http.MethodPost {
			h.Set("OCI-Chunk-Min-Length", strconv.FormatInt(n, 10))
		}
	})
	var mu sync.Mutex
	ended := map[string]bool{} // by upload: a short chunk was the last
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPatch {
			mu.Lock()
			late := ended[req.URL.Path]
			ended[req.URL.Path] = req.ContentLength < n
			mu.Unlock()
			if late {
				http.Error(w, `{"errors":[{"code":"SIZE_INVALID","message":"a chunk was too short"}]}`, http.StatusBadRequest)
				return
			}
		}
		next.ServeHTTP(w, req)
	})
}

// moving writes the addresses of uploads in another way.
func moving(to func(u *url.URL, req *http.Request) string) manner {
	return func(_ *Registry, next http.Handler) http.Handler {
		return changing(next, func(req *http.Request, h http.Header, _ *int) {
			u, err := url.Parse(h.Get("Location"))
			if err != nil || !uploads(req) || h.Get("Location") == "" {
				return
			}
			if u.RawQuery == "" {
				u.RawQuery = "_state=a%2Bb"
			}
			h.Set("Location", to(u, req))
		})
	}
}

// moved has uploads at "/_upload/..." instead.
func moved(r *Registry, next http.Handler) http.Handler {
	next = moving(func(u *url.URL, req *http.Request) string {
		u.Path = "/_upload" + u.Path
		return "http://" + req.Host + u.RequestURI()
	})(r, next)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.URL.Path = strings.TrimPrefix(req.URL.Path, "/_upload")
		next.ServeHTTP(w, req)
	})
}

// onceEach answers the first request of each method, for each kind of thing.
func onceEach(do func(w http.ResponseWriter)) manner {
	return func(_ *Registry, next http.Handler) http.Handler {
		var mu sync.Mutex
		seen := map[string]bool{}
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			key := fmt.Sprint(req.Method, strings.Contains(req.URL.Path, "/manifests/"))
			mu.Lock()
			again := seen[key]
			seen[key] = true
			mu.Unlock()
			if again {
				next.ServeHTTP(w, req)
				return
			}
			do(w)
		})
	}
}

// halfway strikes the first PATCH or PUT with a blob, after half of it.
func halfway(do func(r *Registry, w http.ResponseWriter)) manner {
	return func(r *Registry, next http.Handler) http.Handler {
		var once sync.Once
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			struck := false
			if uploads(req) && req.ContentLength > 1000 {
				once.Do(func() { struck = true })
			}
			if !struck {
				next.ServeHTTP(w, req)
				return
			}
			_, _ = io.CopyN(io.Discard, req.Body, req.ContentLength/2)
			do(r, w)
		})
	}
}

// greedy deletes a tag's manifest with the tag; other tags of it are left behind.
func greedy(_ *Registry, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodDelete {
			head := req.Clone(req.Context())
			head.Method = http.MethodHead
			if digest := answer(next, head).header.Get("Docker-Content-Digest"); digest != "" {
				of := req.Clone(req.Context())
				of.URL.Path = path.Join(path.Dir(req.URL.Path), digest)
				answer(next, of)
			}
		}
		next.ServeHTTP(w, req)
	})
}

// prefixed is a registry below a path.
func prefixed(_ *Registry, next http.Handler) http.Handler {
	const prefix = "/team/prefix"
	next = changing(next, func(_ *http.Request, h http.Header, _ *int) {
		if at := h.Get("Location"); at != "" {
			h.Set("Location", strings.Replace(at, "/v2/", prefix+"/v2/", 1))
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rest, ok := strings.CutPrefix(req.URL.Path, prefix)
		if !ok {
			http.NotFound(w, req)
			return
		}
		req.URL.Path = rest
		next.ServeHTTP(w, req)
	})
}
