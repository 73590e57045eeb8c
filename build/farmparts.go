//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/platform"
)

// A node that works is asked from time to time whether it is still there: a network that
// is cut says nothing.
const aliveEvery = 15 * time.Second

// errSplit says that what one node was to make whole is for several now.
var errSplit = errors.New("several nodes are needed")

// farmed is one request on a farm.
type farmed struct {
	*onFarm
	target  Target
	request Request
	src     *sources
	spooled *spooled
	wanted  []v1.Platform
	parts   []farm.Part
	bases   []reference.Named // images that the Dockerfile names
	links   []nodeLink        // where others use this target's result, or it theirs
	rec     *recorder
	out     *farmOutputs
	images  []ReportImage

	mu sync.Mutex // of images
}

// made is what a node has built.
type made struct {
	platforms []v1.Platform
	digest    digest.Digest // "": no image
	here      bool          // it has landed; else it is in the registry
	tar       string        // file of the root file systems, for an output of that kind
	response  map[string]string
}

// run builds the parts and puts them together.
func (f *farmed) run(ctx context.Context, parts []farm.Part) (_ *Result, err error) {
	if f.out, err = newFarmOutputs(f, len(parts) > 1); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.out.close()) }()
	all, err := f.buildParts(ctx, parts)
	if errors.Is(err, errSplit) {
		if err := f.out.split(); err != nil {
			return nil, err
		}
		if parts, err = f.ready(ctx, f.wanted); err == nil {
			all, err = f.buildParts(ctx, parts)
		}
	}
	if err != nil {
		return nil, err
	}
	return f.deliver(ctx, all)
}

func (f *farmed) buildParts(ctx context.Context, parts []farm.Part) ([]made, error) {
	results := make([][]made, len(parts))
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range parts {
		group.Go(func() (err error) {
			results[i], err = f.buildPart(ctx, p)
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(results...), err
}

// buildPart builds a part on its node, or if that is gone on others.
func (f *farmed) buildPart(ctx context.Context, p farm.Part) ([]made, error) {
	push := f.out.pushes() && reachesOwn(p.Conn.Node, f.request.Names)
	m, err := f.solve(ctx, p, push)
	if refused, ok := errors.AsType[*notPushedError](err); ok {
		f.say(f.request.Notice, fmt.Sprintf("node %q can't push the result (%s): it is pushed from here", p.Conn.Node.Name, refused.reason))
		m, err = f.solve(ctx, p, false)
	}
	var gone *goneError
	if !errors.As(err, &gone) {
		if err != nil {
			return nil, err
		}
		return []made{m}, nil
	}
	f.lose(p.Conn, gone.err)
	if len(f.links) > 0 { // others wait for results on that very node
		return nil, gone.err
	}
	again, err := f.ready(ctx, p.Platforms)
	if err != nil {
		return nil, err
	}
	f.tell(p.Platforms, again)
	if len(again) > 1 && !f.out.several {
		return nil, errSplit
	}
	return f.buildParts(ctx, again)
}

func (f *farmed) lose(c *farm.Conn, err error) {
	f.onFarm.mu.Lock()
	defer f.onFarm.mu.Unlock()
	f.group.Lose(c.Node, err)
}

// goneError says that a node can't go on.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// notPushedError says that all was built and not pushed.
type notPushedError struct{ reason string }

func (e *notPushedError) Error() string { return e.reason }

// solve builds a part on its node.
func (f *farmed) solve(ctx context.Context, p farm.Part, push bool) (made, error) {
	r := f.request
	if len(r.Platforms) > 0 {
		r.Platforms = p.Platforms
	}
	x := f.out.exports(p, push)
	defer x.discard()
	watched, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go watch(watched, p.Conn, stop)
	seen := newWitness(f.rec)
	seen.remote = p.Conn.Node.Endpoint != farm.Local
	if len(f.farm.Nodes) > 1 {
		seen.node = p.Conn.Node.Name
	}
	var res *client.SolveResponse
	err := withSources(watched, f.ownOf(p.Conn), f.src.fresh(f.spooled), r, func(ctx context.Context, opt client.SolveOpt) (err error) {
		if seen.remote {
			delete(opt.FrontendAttrs, engine.AttrEmulators) // folders of this machine
		}
		if err := f.offer(ctx, p, &opt); err != nil {
			return err
		}
		opt.Exports = x.entries
		opt.CacheImports, opt.CacheExports = f.out.caches(p, opt)
		opt.LocalMounts = f.rec.watch(opt.LocalMounts)
		res, err = f.display.follow(ctx, f.label(seen.node), seen, func(status chan *client.SolveStatus) (*client.SolveResponse, error) {
			if l := f.linkOn(p.Conn.Node); l != nil {
				return p.Conn.Client.Build(ctx, opt, "wherry", l.build(opt.Frontend, maps.Clone(opt.FrontendAttrs)), status)
			}
			return p.Conn.Client.Solve(ctx, nil, opt, status)
		})
		return err
	})
	if err != nil {
		return made{}, f.failure(ctx, watched, p, push, seen, err)
	}
	f.addImages(ctx, p, res)
	m := made{
		platforms: p.Platforms, digest: digest.Digest(res.ExporterResponse[exptypes.ExporterImageDigestKey]),
		here: !push, tar: x.tar, response: res.ExporterResponse,
	}
	return m, x.keep()
}

// ownOf is the engine of this process, if that is the node.
func (b *onFarm) ownOf(c *farm.Conn) *ownEngine {
	if c.Node.Endpoint == farm.Local && b.local != nil {
		return b.local.own
	}
	return nil
}

func (f *farmed) linkOn(n farm.Node) *link {
	for _, l := range f.links {
		if l.node == n.Name {
			return l.link
		}
	}
	return nil
}

// label goes before a step's name: the target, and the node where there are several.
func (f *farmed) label(node string) string {
	return strings.TrimSpace(f.target.Name + " " + node)
}

// watch ends the build on a node that answers no more.
func watch(ctx context.Context, c *farm.Conn, stop context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(aliveEvery):
		}
		if err := c.Alive(ctx); err != nil && ctx.Err() == nil {
			stop(err)
		}
	}
}

// failure tells a node that is gone from a build that failed.
func (f *farmed) failure(ctx, watched context.Context, p farm.Part, push bool, seen *witness, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if gone, ok := errors.AsType[*farm.NodeError](context.Cause(watched)); ok {
		return &goneError{gone}
	}
	if _, tried := errors.AsType[*Error](err); !tried {
		return err // of what is here, as a secret's file
	}
	if dead := p.Conn.Alive(ctx); dead != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &goneError{dead}
	}
	if engineGone(err) {
		return &goneError{&farm.NodeError{Node: p.Conn.Node.Name, Endpoint: p.Conn.Node.Endpoint, Err: errors.New("it was started anew")}}
	}
	if reason := seen.exportFailed(); push && reason != "" {
		return &notPushedError{reason}
	}
	return &farm.NodeError{Node: p.Conn.Node.Name, Endpoint: p.Conn.Node.Endpoint, Err: err}
}

// addImages asks the node for the layers of its result, for a report.
func (f *farmed) addImages(ctx context.Context, p farm.Part, res *client.SolveResponse) {
	h, err := v1.NewHash(res.ExporterResponse[exptypes.ExporterImageDigestKey])
	if f.request.Report == nil || err != nil {
		return
	}
	list, err := images(ctx, p.Conn.Client, h)
	if err != nil {
		f.say(f.request.Notice, fmt.Sprintf("report: no sizes of layers: %v", err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images = append(f.images, list...)
}

// report hands the report to who asked for it. What nodes tell of their steps is less than
// the engine of this process tells: not what broke the cache.
func (f *farmed) report(failed error) {
	if f.request.Report == nil {
		return
	}
	rep, _ := f.rec.report(nil, f.request.BuildArgs, failed)
	rep.Images = f.images
	rep.addFiles(f.request.Outputs)
	f.request.Report(rep)
}

// isLoopback says whether a registry is on this machine.
func isLoopback(domain string) bool {
	host, _, err := net.SplitHostPort(domain)
	if err != nil {
		host = domain
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// suffix names the platforms of a part, as in "linux-amd64".
func suffix(list []v1.Platform) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = strings.ReplaceAll(platform.Format(p), "/", "-")
	}
	return strings.Join(names, "-")
}
