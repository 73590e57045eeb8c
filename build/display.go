//go:build linux

package build

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
)

// display shows several builds at once, each step with the name of its target in front.
type display struct {
	progress Progress
	to       chan *client.SolveStatus
	done     chan error

	mu     sync.Mutex
	owners map[digest.Digest]string // the target that a step is shown for: others may share it
}

func newDisplay(ctx context.Context, p Progress) *display {
	d := &display{
		progress: p, to: make(chan *client.SolveStatus), done: make(chan error, 1), owners: map[digest.Digest]string{},
	}
	go func() { d.done <- show(ctx, p, d.to) }()
	return d
}

// close ends the display, when all builds have ended.
func (d *display) close() error {
	close(d.to)
	return <-d.done
}

// solve runs the build of a target and has its status shown. A build of its own has no
// target's name.
func (d *display) solve(ctx context.Context, target string, rec *recorder, run func(chan *client.SolveStatus) (*client.SolveResponse, error)) (*client.SolveResponse, error) {
	return d.follow(ctx, target, newWitness(rec), run)
}

// follow is solve with a witness of the caller's.
func (d *display) follow(ctx context.Context, target string, seen *witness, run func(chan *client.SolveStatus) (*client.SolveResponse, error)) (*client.SolveResponse, error) {
	status := make(chan *client.SolveStatus)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for s := range status {
			seen.add(s)
			d.to <- d.owned(target, s)
		}
	}()
	res, err := run(status)
	<-told
	if err != nil {
		if s := seen.stopped(); len(s.Vertexes) > 0 && seen.node != "" {
			d.to <- s
		}
		return nil, explain(ctx, err, seen, d.progress)
	}
	return res, nil
}

// owned puts the target's name before the steps, and takes out what another target tells
// of steps that both share.
func (d *display) owned(target string, s *client.SolveStatus) *client.SolveStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range s.Vertexes {
		if _, ok := d.owners[v.Digest]; !ok {
			d.owners[v.Digest] = target
		}
		v.Name = prefixed(d.owners[v.Digest], v.Name)
	}
	others := func(step digest.Digest) bool {
		owner, ok := d.owners[step]
		return ok && owner != target
	}
	s.Logs = slices.DeleteFunc(s.Logs, func(l *client.VertexLog) bool { return others(l.Vertex) })
	s.Warnings = slices.DeleteFunc(s.Warnings, func(w *client.VertexWarning) bool { return others(w.Vertex) })
	return s
}

// prefixed is the name of a step with its target: "[app 1/2] FROM" or "[app] exporting".
func prefixed(target, name string) string {
	if target == "" {
		return name
	}
	if rest, ok := strings.CutPrefix(name, "["); ok {
		return "[" + target + " " + rest
	}
	return "[" + target + "] " + name
}
