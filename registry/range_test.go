package registry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
)

// A part of a layer comes over a connection of its own, or not at all: nothing
// is tried twice, and nothing but the part is taken.
func TestOpenRange(t *testing.T) {
	f := newFake(t)
	c := newClient(Config{})
	m := newImage(7, 100_000)
	mustPush(t, c, f.ref(t, "app"), m)
	img, err := c.Get(t.Context(), f.ref(t, "app"))
	if err != nil {
		t.Fatal(err)
	}
	layer := m.layer(0)
	content := m.blobs[layer.Digest]
	if _, err := img.OpenRange(t.Context(), layer, 10, 20); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("before any host has served the layer: %v", err)
	}
	read(t, img, layer, 0)
	r, err := img.OpenRange(t.Context(), layer, 10_000, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, content[10_000:30_000]) || r.Close() != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for name, hook := range map[string]http.HandlerFunc{
		"ignores ranges": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) },
		"cannot":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) },
		"not so many": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"another range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-19999/100000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[:20_000])
		},
		"more than asked for": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 10000-99999/100000")
			w.Header().Set("Content-Length", "90000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[10_000:])
		},
	} {
		f.on(func(w http.ResponseWriter, r *http.Request) bool { hook(w, r); return true })
		begun := time.Now()
		if r, err := img.OpenRange(t.Context(), layer, 10_000, 20_000); err == nil {
			t.Errorf("%s: no error", name)
			_ = r.Close()
		}
		if n := len(f.asked("GET", "")); n != 1 || time.Since(begun) > time.Second {
			t.Errorf("%s: asked %d times in %v", name, n, time.Since(begun))
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "0": 0, "7": 7 * time.Second, "99999999999": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT":    30 * time.Second,
		"Friday, 02-Jan-26 03:05:05 GMT":   time.Minute,
		"Fri, 02 Jan 2026 03:04:00 GMT":    0, // that was before now
		"Fri Jan  2 03:04:06 2026":         time.Second,
		"Fri, 32 Jan 2026 03:04:35 +01:00": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
