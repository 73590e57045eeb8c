package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// tally notes what Progress says of each blob.
type tally struct {
	mu    sync.Mutex
	calls map[v1.Hash][]int64
}

func (p *tally) note(d v1.Descriptor, written int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == nil {
		p.calls = map[v1.Hash][]int64{}
	}
	p.calls[d.Digest] = append(p.calls[d.Digest], written)
}

func TestPushProgress(t *testing.T) {
	f := newFake(t)
	var first, second tally
	m := newImage(1, 200_000, 10)
	mustPush(t, newClient(Config{Progress: first.note}), f.ref(t, "app:1"), m)
	mustPush(t, newClient(Config{Progress: second.note}), f.ref(t, "elsewhere:1"), m) // this registry shares blobs
	m.walk(m.root, func(d v1.Descriptor) {
		if isManifest(d.MediaType) {
			return
		}
		sent := first.calls[d.Digest]
		if len(sent) < 2 || sent[0] != 0 || sent[len(sent)-1] != d.Size {
			t.Errorf("progress of a new blob of %d bytes: %v", d.Size, sent)
		}
		if had := second.calls[d.Digest]; len(had) != 1 || had[0] != d.Size {
			t.Errorf("progress of a blob of %d bytes that is there: %v", d.Size, had)
		}
	})
}

// A push survives what registries do under load, and sends the right bytes.
func TestPushFaults(t *testing.T) {
	m := newImage(1, 300_000, 20_000)
	part := func(method, path string) func(r *http.Request) bool {
		return func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, path) }
	}
	for name, test := range map[string]struct {
		when func(r *http.Request) bool
		do   func(w http.ResponseWriter, r *http.Request)
	}{
		"busy before an upload": {part("POST", "/uploads/"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }},
		"limit in an upload": {part("PATCH", ""), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}},
		"breaks an upload": {part("PATCH", ""), func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		}},
		"fails to commit":     {part("PUT", "/uploads/"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }},
		"fails on a manifest": {part("PUT", "/manifests/"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			var failed atomic.Bool
			f.on(func(w http.ResponseWriter, r *http.Request) bool {
				if !test.when(r) || failed.Swap(true) {
					return false
				}
				test.do(w, r)
				return true
			})
			mustPush(t, newClient(Config{}), f.ref(t, "app:1"), m)
			mustHold(t, newClient(Config{}), f.ref(t, "app:1"), m)
			if !failed.Load() {
				t.Error("nothing went wrong")
			}
		})
	}
}

// A registry without HEAD, or one that leaves out the digest, is sent everything.
func TestPushWithoutHead(t *testing.T) {
	for _, status := range []int{http.StatusMethodNotAllowed, http.StatusOK} {
		f := newFake(t)
		f.on(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead || status == http.StatusOK && !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.WriteHeader(status)
			return true
		})
		m := newImage(1, 1000)
		mustPush(t, newClient(Config{}), f.ref(t, "app:1"), m)
		mustHold(t, newClient(Config{}), f.ref(t, "app:1"), m)
	}
}

func TestPushErrors(t *testing.T) {
	f := newFake(t)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	c := newClient(Config{})
	c.limits.stall = 200 * time.Millisecond
	c.limits.answer = time.Second // should the sockets swallow a whole layer
	c.limits.tries = 2
	broken := newImage(1, 100, 200)
	delete(broken.blobs, broken.layer(1).Digest)
	if err := c.Push(t.Context(), f.ref(t, "app:1"), broken); err == nil || !strings.HasPrefix(err.Error(), "reading "+broken.layer(1).Digest.String()+": no sha256:") {
		t.Errorf("a source that lacks a layer: %v", err)
	}
	wrong := newImage(2, 10)
	wrong.blobs[wrong.root.Digest] = []byte("{}")
	if err := c.Push(t.Context(), f.ref(t, "app:1"), wrong); err == nil || !strings.Contains(err.Error(), "its digest is") {
		t.Errorf("a manifest with other bytes: %v", err)
	}
	if _, err := c.Get(t.Context(), f.ref(t, "app:1")); err == nil {
		t.Error("a push that failed left a tag")
	}
	m := newImage(3, 8<<20)
	pinned := mustRef(t, f.ref(t, "app").Name()+"@sha256:"+strings.Repeat("1", 64))
	if err := c.Push(t.Context(), pinned, m); err == nil {
		t.Error("pushed as a digest that is another's")
	}
	mustPush(t, c, mustRef(t, f.ref(t, "app").Name()+"@"+m.root.Digest.String()), m)

	for name, test := range map[string]struct {
		hook func(w http.ResponseWriter, r *http.Request)
		want any
	}{
		"denied":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, new(*UnauthorizedError)},
		"no project": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, new(*StatusError)},
		"limit": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "4000")
			w.WriteHeader(429)
		}, new(*RateLimitError)},
		"takes no more": {func(http.ResponseWriter, *http.Request) { <-done }, new(*UnreachableError)},
	} {
		t.Run(name, func(t *testing.T) {
			method := "POST"
			if name == "takes no more" {
				method = "PATCH"
			}
			f.on(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != method {
					return false
				}
				test.hook(w, r)
				return true
			})
			start := time.Now()
			err := c.Push(t.Context(), f.ref(t, "new:1"), newImage(uint64(start.UnixNano()), 8<<20))
			if err == nil || !errors.As(err, test.want) || strings.Contains(err.Error(), ":0/") {
				t.Errorf("got %T %v", err, err)
			}
			if time.Since(start) > 10*time.Second {
				t.Errorf("took %s", time.Since(start))
			}
		})
	}
}

// Ctrl-C ends a push and a pull at once.
func TestCancel(t *testing.T) {
	f := newFake(t)
	m := newImage(1, 1000)
	c := New(Config{}) // patient
	mustPush(t, c, f.ref(t, "app:1"), m)
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	for name, run := range map[string]func(ctx context.Context) error{
		"get":  func(ctx context.Context) error { _, err := c.Get(ctx, f.ref(t, "app:1")); return err },
		"push": func(ctx context.Context) error { return c.Push(ctx, f.ref(t, "app:2"), newImage(9, 1000)) },
		"tags": func(ctx context.Context) error { _, err := c.Tags(ctx, f.ref(t, "app")); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		if err := run(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
			t.Errorf("%s ended with %v after %s", name, err, time.Since(start))
		}
		cancel()
	}
}

// From one repository of a registry to another no layer travels, where the
// registry can mount.
func TestMountRequest(t *testing.T) {
	f := newFake(t)
	c := newClient(Config{})
	m := newImage(1, 1000)
	mustPush(t, c, f.ref(t, "base/app:1"), m)
	img, err := c.Get(t.Context(), f.ref(t, "base/app:1"))
	if err != nil {
		t.Fatal(err)
	}
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
			return true
		case r.Method == http.MethodPost && r.URL.Query().Get("from") == "base/app" && r.URL.Query().Get("mount") != "":
			if r.URL.Query().Has("origin") {
				t.Errorf("asked to mount with %s", r.URL.RawQuery)
			}
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	if err := c.Push(t.Context(), f.ref(t, "team/copy:1"), img); err != nil {
		t.Fatal(err)
	}
	if n := len(f.asked("PATCH", "")); n > 0 {
		t.Errorf("%d blobs were sent", n)
	}
	// containerd's annotation says the same.
	d := v1.Descriptor{Annotations: map[string]string{"containerd.io/distribution.source.registry.corp": "team/app,base/app"}}
	p := &push{domain: "registry.corp", session: &session{repo: "team/app"}, source: &memory{}, held: new(sync.Map)}
	if got := p.origin(d); got != "base/app" {
		t.Errorf("origin by annotation: %q", got)
	}
	if got := fmt.Sprint(p.origin(v1.Descriptor{})); got != "" {
		t.Errorf("origin of nothing: %q", got)
	}
}
