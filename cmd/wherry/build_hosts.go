//go:build linux

package main

import (
	"context"
	"sync"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/registry"
)

// addHosts lets a build reach registries as pull does, with the same credentials. What there is to say about
// that is said at once, or when the build is over if it draws on the terminal.
func (e *env) addHosts(ctx context.Context, req *build.Request) (*heldNotes, error) {
	c, err := e.registryConfig()
	if err != nil {
		return nil, err
	}
	notes := &heldNotes{}
	if e.StderrTTY {
		c.Notice = notes.add
	}
	client := registry.New(c)
	req.Hosts, req.Keychain = client.RegistryHosts(ctx), client.SolverKeychain(ctx)
	return notes, nil
}

// heldNotes wait until nothing else draws on the terminal.
type heldNotes struct {
	mu   sync.Mutex
	list []string
}

func (h *heldNotes) add(msg string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, msg)
}

func (h *heldNotes) say(e *env) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, msg := range h.list {
		e.say("%s", printable(msg))
	}
}
