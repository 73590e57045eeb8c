package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestSteadyTransport has a server stop in the middle of an answer; one that is slow but comes is waited for, and so is a
// reader that takes its time.
func TestSteadyTransport(t *testing.T) {
	const stall = 300 * time.Millisecond
	chunk := make([]byte, stallBytes)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 4 {
			_, _ = w.Write(chunk)
			w.(http.Flusher).Flush()
			time.Sleep(stall / 3)
		}
		if r.URL.Path == "/stalls" {
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	client := &http.Client{Transport: steadyTransport{base: http.DefaultTransport, stall: stall}}
	for path, want := range map[string]error{"/comes": nil, "/stalls": errStalled} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * stall) // nobody waits for the server meanwhile
		n, err := io.Copy(io.Discard, resp.Body)
		if !errors.Is(err, want) || n != 4*stallBytes {
			t.Errorf("%s: %d bytes, %v; want %d, %v", path, n, err, 4*stallBytes, want)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
