package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Whatever is pushed comes back byte by byte, by tag and by digest, and a second
// push sends nothing.
func TestPushAndGet(t *testing.T) {
	for name, m := range map[string]*memory{"image": newImage(1, 1<<20, 5, 70_000), "index": newIndex(true)} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := newClient(Config{})
			ref := f.ref(t, "some/app:1.2")
			mustPush(t, c, ref, m)
			mustHold(t, c, ref, m)
			pinned, err := ParseReference(ref.Name() + "@" + m.root.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			mustHold(t, c, pinned, m)

			f.on(nil)
			mustPush(t, c, ref, m)
			mustPush(t, c, f.ref(t, "some/app:other"), m)
			if sent := len(f.asked("PATCH", "")) + len(f.asked("POST", "")); sent > 0 {
				t.Errorf("pushing again uploaded %d blobs", sent)
			}
			mustHold(t, c, f.ref(t, "some/app:other"), m)
		})
	}
}

func TestGetErrors(t *testing.T) {
	f := newFake(t)
	c := newClient(Config{})
	m := newImage(1, 10)
	mustPush(t, c, f.ref(t, "app:1"), m)
	wrong := "sha256:" + strings.Repeat("0", 64)
	reply := func(status int, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	tests := []struct {
		name string
		ref  string
		hook func(http.ResponseWriter, *http.Request) bool
		want any    // a pointer to the type of the error
		text string // a part of it
	}{
		{"no such tag", "app:2", nil, new(*NotFoundError), `app:2" not found`},
		{"no such repository", "other", nil, new(*NotFoundError), `other:latest" not found`},
		{"wrong digest", "app@" + wrong, func(w http.ResponseWriter, r *http.Request) bool {
			r.URL.Path = strings.Replace(r.URL.Path, wrong, "1", 1)
			return false
		}, new(*DigestError), wrong},
		{"lying header", "app:1", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", wrong)
			_, _ = w.Write(m.blobs[m.root.Digest])
			return true
		}, new(*DigestError), "sent wrong bytes"},
		{"huge", "app:1", func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.CopyN(w, endless{}, 100<<20)
			return true
		}, new(*FormatError), "larger than 4 MiB"},
		{
			"schema 1", "app:1", reply(200, "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`),
			new(*FormatError), "schema 1",
		},
		{
			"both kinds", "app:1", reply(200, "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[],"layers":[]}`),
			new(*FormatError), "both as a manifest and as an index",
		},
		{"no manifest", "app:1", reply(200, "text/html", `<html>sign in here</html>`), new(*FormatError), "not valid JSON"},
		{"odd type", "app:1", reply(200, "x/y", `{"mediaType":"text/\u001b[31mred"}`), new(*FormatError), `"text/[31mred"`},
		{
			"denied", "app:1", reply(403, "", `{"errors":[{"code":"DENIED","message":"not\u001b[2J for\nyou"}]}`),
			new(*UnauthorizedError), `denies access to "` + f.host() + `/app:1": not[2J for you`,
		},
		{"unauthorized without a challenge", "app:1", reply(401, "", ``), new(*UnauthorizedError), "denies access"},
		{"long message", "app:1", reply(400, "", `{"errors":[{"message":"`+strings.Repeat("x", 5000)+`"}]}`), new(*StatusError), "status 400: xxx"},
		{"server error", "app:1", reply(500, "", `oops`), new(*StatusError), "status 500"},
		{"rate limit", "app:1", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
			return true
		}, new(*RateLimitError), "retry after 1h0m0s"},
		{
			"breaks off", "app:1", func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) },
			new(*UnreachableError), "is unreachable: the connection broke",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f.on(test.hook)
			_, err := c.Get(t.Context(), f.ref(t, test.ref))
			if err == nil || !errors.As(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Fatalf("got %T %q, want a %T with %q", err, err, test.want, test.text)
			}
			if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("unfit for a terminal: %q", err)
			}
		})
	}
}

// endless JSON.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '['
	}
	return len(p), nil
}

func TestUnreachable(t *testing.T) {
	f := newFake(t)
	f.Close()
	_, err := newClient(Config{}).Get(t.Context(), f.ref(t, "app"))
	if want := "registry " + f.host() + " is unreachable: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	_, err = newClient(Config{}).Get(t.Context(), mustRef(t, "registry.invalid/app"))
	if want := "registry registry.invalid is unreachable: no such host"; err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

// A registry that is busy is asked again, when it says or a little later.
func TestRetries(t *testing.T) {
	f := newFake(t)
	var notices []string
	c := newClient(Config{Notice: func(msg string) { notices = append(notices, msg) }})
	m := newImage(1, 10)
	ref := f.ref(t, "app")
	mustPush(t, c, ref, m)
	for _, status := range []int{429, 500, 502, 503, 504} {
		var tries atomic.Int32
		f.on(func(w http.ResponseWriter, r *http.Request) bool {
			if tries.Add(1) > 2 {
				return false
			}
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(status)
			return true
		})
		if _, err := c.Get(t.Context(), ref); err != nil {
			t.Errorf("after %d: %v", status, err)
		}
	}
	var once atomic.Bool
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if once.Swap(true) {
			return false
		}
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(429)
		return true
	})
	start := time.Now()
	if _, err := c.Get(t.Context(), ref); err != nil || time.Since(start) < 2*time.Second {
		t.Errorf("came back after %s with %v, asked to wait 2s", time.Since(start), err)
	}
	if want := "registry " + f.host() + " is busy (status 429): asking again in 2s"; len(notices) != 1 || notices[0] != want {
		t.Errorf("notices %q, want %q", notices, want)
	}
	f.on(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true })
	if _, err := c.Get(t.Context(), ref); err == nil || len(f.asked("GET", "/manifests/")) != c.limits.tries {
		t.Errorf("%d tries, then %v", len(f.asked("GET", "/manifests/")), err)
	}
}

// cut sends only so many bytes of a blob, then breaks the connection.
func cut(w http.ResponseWriter, content []byte, start, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)-start))
	if start > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(content[start:min(start+n, len(content))])
	if start+n < len(content) {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// A download that breaks goes on where it broke, and fetches nothing twice.
func TestResume(t *testing.T) {
	f := newFake(t)
	c := newClient(Config{})
	const size = 3 << 20
	m := newImage(7, size)
	ref := f.ref(t, "app")
	mustPush(t, c, ref, m)
	img, err := c.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	layer := m.layer(0)
	content := m.blobs[layer.Digest]
	var sent atomic.Int64
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		start := 0
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
		sent.Add(int64(min(1_000_000, size-start)))
		cut(w, content, start, 1_000_000)
		return true
	})
	if got := read(t, img, layer, 0); !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, not those of the layer", len(got))
	}
	asked := f.asked("GET", "/blobs/")
	if len(asked) != 4 || asked[0].Header.Get("Range") != "" || asked[1].Header.Get("Range") != "bytes=1000000-3145727" {
		t.Errorf("%d requests, the second with range %q", len(asked), asked[min(1, len(asked)-1)].Header.Get("Range"))
	}
	if sent.Load() != size {
		t.Errorf("%d bytes were sent for %d", sent.Load(), size)
	}

	// From an offset on, as a second process would.
	f.on(nil)
	if got := read(t, img, layer, size-5); !bytes.Equal(got, content[size-5:]) {
		t.Errorf("from an offset on: %d bytes", len(got))
	}
	// A server that ignores the range, and one that cannot stand it.
	for _, status := range []int{http.StatusOK, http.StatusRequestedRangeNotSatisfiable} {
		f.on(func(w http.ResponseWriter, r *http.Request) bool {
			if status != http.StatusOK && r.Header.Get("Range") != "" {
				w.WriteHeader(status)
				return true
			}
			r.Header.Del("Range")
			return false
		})
		if got := read(t, img, layer, 1000); !bytes.Equal(got, content[1000:]) {
			t.Errorf("server without ranges (%d): %d bytes", status, len(got))
		}
	}
}

// A download that never comes to an end is given up.
func TestHopelessDownloads(t *testing.T) {
	f := newFake(t)
	c := newClient(Config{})
	c.limits.stall = 300 * time.Millisecond
	c.limits.tries = 2
	m := newImage(7, 100_000)
	ref := f.ref(t, "app")
	mustPush(t, c, ref, m)
	img, err := c.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	layer := m.layer(0)
	content := m.blobs[layer.Digest]
	drip := func(w http.ResponseWriter, r *http.Request) bool {
		start := 0
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
		if start > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-", start))
			w.WriteHeader(http.StatusPartialContent)
		}
		for _, b := range content[start:] {
			if _, err := w.Write([]byte{b}); err != nil || r.Context().Err() != nil {
				return true
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
		return true
	}
	hooks := map[string]func(http.ResponseWriter, *http.Request) bool{
		"a byte now and then": drip,
		"silence":             func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"breaks at once":      func(w http.ResponseWriter, r *http.Request) bool { cut(w, content, 0, 0); return true },
		"ends early": func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = w.Write(nil)
			return true
		},
		"another range": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Range") == "" {
				cut(w, content, 0, 10)
			}
			w.Header().Set("Content-Range", "bytes 0-99999/100000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content)
			return true
		},
	}
	for name, hook := range hooks {
		t.Run(name, func(t *testing.T) {
			f.on(hook)
			start := time.Now()
			r, err := img.Open(t.Context(), layer, 0)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				_ = r.Close()
			}
			if err == nil || time.Since(start) > 10*time.Second {
				t.Errorf("ended with %v after %s", err, time.Since(start))
			}
		})
	}
}

// Storage on another host, or on the same under another name, sees no password.
func TestRedirect(t *testing.T) {
	storage := newFake(t)
	f := newFake(t)
	c := newClient(Config{Keychain: keychain{f.host(): {Username: "u", Password: "secret"}}})
	m := newImage(3, 50_000)
	basicAuth(f, nil)
	ref := f.ref(t, "app")
	mustPush(t, c, ref, m)
	layer := m.layer(0)
	storage.on(func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = w.Write(m.blobs[layer.Digest])
		return true
	})
	basicAuth(f, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, r, storage.URL+"/bucket/x?signature=y", http.StatusTemporaryRedirect)
		return true
	})
	img, err := c.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, img, layer, 0); !bytes.Equal(got, m.blobs[layer.Digest]) {
		t.Errorf("got %d bytes", len(got))
	}
	asked := storage.asked("GET", "/bucket/x")
	if len(asked) != 1 || asked[0].Header.Get("Authorization") != "" {
		t.Errorf("storage was asked %d times, with a password perhaps", len(asked))
	}
}

// A blob that is kept with an encoding is taken as it is.
func TestEncodedBlob(t *testing.T) {
	f := newFake(t)
	m := newImage(3, 5000)
	mustPush(t, newClient(Config{}), f.ref(t, "app"), m)
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("asked for the encoding %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		return false
	})
	mustHold(t, newClient(Config{}), f.ref(t, "app"), m)
}

// A layer that the registry lacks is fetched where its descriptor says.
func TestForeignLayer(t *testing.T) {
	elsewhere, f := newFake(t), newFake(t)
	c := newClient(Config{})
	m := newImage(3, 10)
	mustPush(t, c, f.ref(t, "app"), m)
	content := noise(9, 5000)
	h, _, _ := v1.SHA256(bytes.NewReader(content))
	elsewhere.on(func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = w.Write(content)
		return true
	})
	img, err := c.Get(t.Context(), f.ref(t, "app"))
	if err != nil {
		t.Fatal(err)
	}
	d := v1.Descriptor{
		MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		Digest:    h, Size: 5000, URLs: []string{"file:///etc/passwd", elsewhere.URL + "/layer"},
	}
	if got := read(t, img, d, 100); !bytes.Equal(got, content[100:]) {
		t.Errorf("got %d bytes", len(got))
	}
	d.URLs = nil
	var missing *NotFoundError
	if _, err := img.Open(t.Context(), d, 0); !errors.As(err, &missing) {
		t.Errorf("without an address: %v", err)
	}
}

func TestTags(t *testing.T) {
	f := newFake(t)
	c := newClient(Config{})
	pages := map[string]string{
		"n=1000":        `{"tags":["a","b"]}`,
		"n=1000&last=b": `{"tags":["c","\u001b[31m","not a tag"]}`,
		"last=c":        `{"tags":null}`,
	}
	links := map[string]string{
		"n=1000":        `</v2/app/tags/list?n=1000&last=b>; rel="next"`,
		"n=1000&last=b": `<http://metadata.invalid/v2/app/tags/list?last=c>; rel="next"`,
	}
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Link", links[r.URL.RawQuery])
		fmt.Fprint(w, pages[r.URL.RawQuery])
		return true
	})
	tags, err := c.Tags(t.Context(), f.ref(t, "app:x"))
	if got := strings.Join(tags, " "); err != nil || got != "a b c" {
		t.Errorf("got %q, %v", got, err)
	}
	f.on(nil)
	var missing *NotFoundError
	if _, err := c.Tags(t.Context(), reference.TrimNamed(f.ref(t, "none"))); !errors.As(err, &missing) {
		t.Errorf("of no repository: %v", err)
	}
}
