package testreg

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A trick answers a request as no registry should. next has the honest answer.
type trick func(w http.ResponseWriter, req *http.Request, next http.Handler)

// blobTricks are played on who asks for a layer:
//
//	longer     more bytes than the manifest says, announced
//	endless    bytes without end, not announced
//	shorter    half of the bytes, announced
//	nothing    no byte, announced
//	overstated more bytes announced than come
//	silent     no answer at all, and the connection stays open
//	drip       a byte a second
//	zipped     the bytes in a Content-Encoding that nobody asked for
//	loop       a redirect to itself
//	headers    headers without end
//	escape     an error that would repaint a terminal
func blobTricks() map[string]trick {
	return map[string]trick{
		"longer": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			body := append(answer(next, req).body.Bytes(), make([]byte, 1000)...)
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		},
		"endless": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			_, _ = w.Write(answer(next, req).body.Bytes())
			pour(w, make([]byte, 64<<10))
		},
		"shorter": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			body := answer(next, req).body.Bytes()
			_, _ = w.Write(body[:len(body)/2])
		},
		"nothing": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.Header().Set("Content-Length", "0") },
		"overstated": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			body := answer(next, req).body.Bytes()
			w.Header().Set("Content-Length", strconv.Itoa(len(body)+1000))
			_, _ = w.Write(body)
		},
		"silent": func(_ http.ResponseWriter, req *http.Request, _ http.Handler) { <-req.Context().Done() },
		"drip": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			for _, b := range answer(next, req).body.Bytes() {
				if _, err := w.Write([]byte{b}); err != nil || http.NewResponseController(w).Flush() != nil || req.Context().Err() != nil {
					return
				}
				time.Sleep(time.Second)
			}
		},
		"zipped": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			_, _ = zip.Write(answer(next, req).body.Bytes())
			_ = zip.Close()
		},
		"loop": func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			http.Redirect(w, req, req.URL.Path+"?again="+strconv.Itoa(len(req.URL.RawQuery)), http.StatusTemporaryRedirect)
		},
		"headers": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { hijack(w, headersWithoutEnd) },
		"escape": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[31m\\u009b2J\\u0007 way\\r\\nwherry: all is well\\u202e\"}]}")
		},
	}
}

// manifestTricks are played on who asks for a manifest, by tag or by digest:
//
//	huge   a manifest without end
//	deep   a JSON document that is nothing but brackets
//	wide   a manifest with a hundred thousand layers
//	html   a page that says hello, with the type of a manifest
//	packed a small gzip file that unpacks to a huge manifest
//	mute   as silent
func manifestTricks() map[string]trick {
	const media = "application/vnd.oci.image.manifest.v1+json"
	send := func(body string) trick {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", media)
			_, _ = io.WriteString(w, body)
		}
	}
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":9,"digest":"sha256:` + strings.Repeat("ab", 32) + `"}`
	return map[string]trick{
		"huge": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", media)
			_, _ = io.WriteString(w, `{"schemaVersion":2`)
			pour(w, bytes.Repeat([]byte(" "), 64<<10))
		},
		"deep": send(strings.Repeat("[", 2_000_000)),
		"wide": send(`{"schemaVersion":2,"config":` + layer + `,"layers":[` + strings.Repeat(layer+",", 24_000) + layer + `]}`),
		"html": send("<!DOCTYPE html><title>hello\x1b[2J</title>"),
		"packed": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", media)
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			_, _ = zip.Write(make([]byte, 300<<20))
			_ = zip.Close()
		},
		"mute": func(_ http.ResponseWriter, req *http.Request, _ http.Handler) { <-req.Context().Done() },
	}
}

// listTricks are played on who asks for tags: each page names a next one, with
// new tags (pages), the same ones (again) or none (blank).
func listTricks() map[string]trick {
	page := func(tags func(n int) string) trick {
		return func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			n, _ := strconv.Atoi(req.URL.Query().Get("page"))
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, req.URL.Path, n+1))
			_, _ = fmt.Fprintf(w, `{"tags":[%s]}`, tags(n))
		}
	}
	return map[string]trick{
		"pages": page(func(n int) string { return fmt.Sprintf(`"v%d"`, n) }),
		"again": page(func(int) string { return `"v1"` }),
		"blank": page(func(int) string { return "" }),
	}
}

// tricked plays a trick if one is due.
func (r *Registry) tricked(w http.ResponseWriter, req *http.Request, next http.Handler) bool {
	if req.Method != http.MethodGet {
		return false
	}
	var tricks map[string]trick
	switch {
	case strings.Contains(req.URL.Path, "/blobs/"):
		tricks = blobTricks()
	case strings.Contains(req.URL.Path, "/manifests/"):
		tricks = manifestTricks()
	case strings.HasSuffix(req.URL.Path, "/tags/list"):
		tricks = listTricks()
	}
	for name := range r.options.Faults {
		if play, ok := tricks[name]; ok && r.strikes(name) {
			play(w, req, next)
			return true
		}
	}
	return false
}

// pour writes the same again and again until nobody listens any more.
func pour(w io.Writer, what []byte) {
	for {
		if _, err := w.Write(what); err != nil {
			return
		}
	}
}

func hijack(w http.ResponseWriter, then func(*bufio.ReadWriter)) {
	conn, stream, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	then(stream)
	_ = conn.Close()
}

func headersWithoutEnd(stream *bufio.ReadWriter) {
	_, err := stream.WriteString("HTTP/1.1 200 OK\r\n")
	for n := 0; err == nil; n++ {
		_, err = fmt.Fprintf(stream, "X-%d: %s\r\n", n, strings.Repeat("a", 1000))
	}
}
