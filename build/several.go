//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"
)

// Target is one of several builds that run side by side.
type Target struct {
	Name string // for the display, errors, and the contexts of the others
	// Request's Progress is not used. A context "target:NAME" is the result of the target
	// NAME, of all that it says an image is: its files, and the config for FROM.
	Request Request
}

// TargetError says which of several builds failed.
type TargetError struct {
	Target string
	Err    error
}

func (e *TargetError) Error() string { return fmt.Sprintf("target %q: %v", e.Target, e.Err) }

func (e *TargetError) Unwrap() error { return e.Err }

// Several builds targets side by side on one engine, with one display. The first
// failure ends the others; what was done by then stays. Results are by the targets'
// names.
//
// Errors are those of [Build] in a [*TargetError].
func Several(ctx context.Context, store Store, state State, p Progress, targets []Target) (map[string]*Result, error) {
	if len(targets) == 0 {
		return nil, errors.New("no target to build")
	}
	if err := checkLinks(targets); err != nil {
		return nil, err
	}
	located := make([]*sources, len(targets))
	for i, t := range targets {
		var err error
		if located[i], err = locate(ctx, t.Request); err != nil {
			return nil, &TargetError{t.Name, err}
		}
		located[i].aside = state.Isolation == IsolationNone
	}
	var results []*Result
	err := withEngine(ctx, store, state, targets[0].Request, func(ctx context.Context, c *client.Client, own *ownEngine) (err error) {
		results, err = solveAll(ctx, c, own, p, state, targets, located)
		return err
	})
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*Result, len(targets))
	for i, t := range targets {
		byName[t.Name] = results[i]
	}
	return byName, nil
}

func solveAll(ctx context.Context, c *client.Client, own *ownEngine, p Progress, state State, targets []Target, located []*sources) (_ []*Result, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	shared, err := shareFolders(ctx, c, located, fail)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := shared.close(); err == nil {
			err = closed
		}
	}()
	for _, src := range located {
		own.share(src, fail)
	}
	results := make([]*Result, len(targets))
	all := &side{on: connection{c, own}, display: newDisplay(ctx, p), links: newLinks(targets), state: state}
	group, ctx := errgroup.WithContext(ctx)
	for i, t := range targets {
		group.Go(func() error {
			err := withSources(ctx, nil, located[i], t.Request, func(ctx context.Context, opt client.SolveOpt) (err error) {
				shared.use(located[i], opt.FrontendAttrs)
				results[i], err = all.solve(ctx, t, opt)
				return err
			})
			if err != nil {
				return &TargetError{all.links.of[t.Name].culprit(err), err}
			}
			return nil
		})
	}
	err = group.Wait()
	if shown := all.display.close(); err == nil {
		err = shown
	}
	return results, err
}

// side is what targets that are built side by side have in common.
type side struct {
	on      connection
	display *display
	links   *links
	state   State
}

// solve builds one target, and remembers it for the next report.
func (s *side) solve(ctx context.Context, t Target, opt client.SolveOpt) (*Result, error) {
	rec := newRecorder(time.Now(), entitlements(t.Request))
	opt.LocalMounts = rec.watch(opt.LocalMounts)
	res, err := s.run(ctx, rec, t, opt)
	rec.finish(ctx, s.on.client, pastFile(s.state, t.Request), t.Request, res, err)
	return res, err
}

// run goes through a gateway, where results can be handed on, if the target is linked to
// others.
func (s *side) run(ctx context.Context, rec *recorder, t Target, opt client.SolveOpt) (*Result, error) {
	x, err := newExports(t.Request, s.on.own)
	if err != nil {
		return nil, err
	}
	defer x.discard()
	opt.Exports = x.entries
	link := s.links.of[t.Name]
	res, err := s.display.solve(ctx, t.Name, rec, func(status chan *client.SolveStatus) (*client.SolveResponse, error) {
		if link.alone() {
			return s.on.client.Solve(ctx, nil, opt, status)
		}
		return s.on.client.Build(ctx, opt, "wherry", link.build(opt.Frontend, maps.Clone(opt.FrontendAttrs)), status)
	})
	if err != nil {
		return nil, err
	}
	if err := x.keep(); err != nil {
		return nil, err
	}
	return result(res, t.Request)
}

// linked are the names of the targets whose results a request has as contexts.
func linked(r Request) []string {
	var names []string
	for _, v := range r.Contexts {
		if name, ok := strings.CutPrefix(v, targetPrefix); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkLinks refuses links that lead nowhere or in a circle: they would be waited for.
func checkLinks(targets []Target) error {
	to := map[string][]string{}
	for _, t := range targets {
		to[t.Name] = linked(t.Request)
	}
	done := map[string]bool{}
	for len(done) < len(targets) {
		before := len(done)
		for name, links := range to {
			if !slices.ContainsFunc(links, func(l string) bool { return !done[l] }) {
				done[name] = true
			}
		}
		if len(done) == before {
			return errors.New("the contexts of targets lead to each other, or to a target that is not built")
		}
	}
	return nil
}
