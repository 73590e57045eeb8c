//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/platform"
)

// Farm is where and how a request is built that is not built in this process.
type Farm struct {
	Name  string // of the builder that has the nodes, for errors
	Nodes []farm.Node
	// Registries is what results are pushed by.
	Registries Registries
	// Told gets a line for each platform, before the first step: on which node it is built.
	Told func(line string)
	// Drawn says that the display draws on a terminal: what is to be told meanwhile goes there.
	Drawn bool
}

// Registries is what a build needs of registries to publish its result; package registry
// has it.
type Registries interface {
	// Manifest reads the manifest or index of a digest.
	Manifest(ctx context.Context, ref reference.Canonical) (v1.Descriptor, []byte, error)
	// Push sends src and what it reaches to ref, but for what is there.
	Push(ctx context.Context, ref reference.Named, src Source) error
}

// onFarm is builds on the nodes of a farm.
type onFarm struct {
	store   Store
	state   State
	farm    Farm
	display *display

	mu    sync.Mutex // of group
	group *farm.Group
	local *connection // if this process is a node, and has been needed
	told  map[string]bool

	asked sync.Mutex      // of has
	has   map[string]bool // what registries have
}

// OnFarm builds requests side by side on the nodes of a farm, each platform on the node
// that suits it best. A node that is gone is replaced by another. The first failure ends
// the others. Results are by the targets' names.
//
// A request that is not to be pushed ends in the image store or its other outputs, as with
// [Build]. One that is to be pushed goes from the nodes to the registry, and from here only
// where that fails; it is in the store too if r.Keep says so.
//
// Errors are those of [Build] in a [*farm.NodeError], a [*farm.NoNodeError], or the
// registry's; in a [*TargetError] if the target has a name.
func OnFarm(ctx context.Context, store Store, state State, f Farm, p Progress, targets []Target) (_ map[string]*Result, err error) {
	for _, t := range targets {
		if err := checkForFarm(t.Request); err != nil {
			return nil, named(t, err)
		}
	}
	b, err := newOnFarm(store, state, f, targets)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	all, err := b.prepare(ctx, targets)
	if err != nil {
		return nil, err
	}
	b.display = newDisplay(ctx, p)
	results := make([]*Result, len(targets))
	group, ctx := errgroup.WithContext(ctx)
	for i, one := range all {
		group.Go(func() (err error) {
			results[i], err = one.build(ctx)
			return named(one.target, err)
		})
	}
	err = group.Wait()
	if shown := b.display.close(); err == nil {
		err = shown
	}
	byName := make(map[string]*Result, len(targets))
	for i, t := range targets {
		byName[t.Name] = results[i]
	}
	return byName, err
}

// named says which target an error is of.
func named(t Target, err error) error {
	if err == nil || t.Name == "" {
		return err
	}
	return &TargetError{t.Name, err}
}

func newOnFarm(store Store, state State, f Farm, targets []Target) (*onFarm, error) {
	if len(targets) == 0 {
		return nil, errors.New("no target to build")
	}
	r := targets[0].Request
	engine.Quiet()
	b := &onFarm{store: store, state: state, farm: f, told: map[string]bool{}, has: map[string]bool{}}
	say := func(msg string) { b.say(r.Notice, msg) }
	b.group = &farm.Group{Name: f.Name, Nodes: f.Nodes, Notice: say, Open: func(ctx context.Context, n farm.Node) (*farm.Conn, error) {
		if n.Endpoint != farm.Local {
			return farm.Connect(ctx, n)
		}
		return b.openLocal(ctx, n, r, platformsOf(targets))
	}}
	return b, nil
}

// platformsOf are all that targets ask for.
func platformsOf(targets []Target) []v1.Platform {
	var all []v1.Platform
	for _, t := range targets {
		for _, p := range t.Request.Platforms {
			if !slices.ContainsFunc(all, p.Equals) {
				all = append(all, p)
			}
		}
	}
	return all
}

// openLocal makes this process a node, which emulates what it can of the platforms wanted.
func (b *onFarm) openLocal(ctx context.Context, n farm.Node, r Request, wanted []v1.Platform) (*farm.Conn, error) {
	o, err := engineOptions(b.store, b.state, r)
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, o)
	if err != nil {
		return nil, b.state.explain(err)
	}
	b.local = c
	node, err := farm.Use(ctx, n, c.client)
	if err != nil {
		return nil, err
	}
	r.Platforms = wanted
	steps, err := b.state.PlatformSteps(ctx, r)
	for _, s := range steps {
		if s.Reason == nil {
			node.Worker.Platforms = append(node.Worker.Platforms, ocispecs.Platform{OS: s.Platform.OS, Architecture: s.Platform.Architecture, Variant: s.Platform.Variant})
		}
	}
	return node, err
}

func (b *onFarm) close(ctx context.Context) error {
	err := b.group.Close()
	if b.local != nil {
		o, optErr := engineOptions(b.store, b.state, Request{})
		err = errors.Join(err, optErr, b.local.close(ctx, o))
	}
	return err
}

// onAnyNode does a job with the request on a node that is there.
func onAnyNode(ctx context.Context, store Store, state State, f Farm, r Request, do job) (err error) {
	src, err := locate(ctx, r)
	if err != nil {
		return err
	}
	b, err := newOnFarm(store, state, f, []Target{{Request: r}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	b.farm.Told = nil // nothing is built
	_, parts, err := b.plan(ctx, r.Platforms)
	if err != nil {
		return err
	}
	c, one := parts[0].Conn, &farmed{onFarm: b, request: r, bases: findBases(src, nil, r)}
	return withSources(ctx, b.ownOf(c), src, r, func(ctx context.Context, opt client.SolveOpt) error {
		if err := one.offer(ctx, parts[0], &opt); err != nil {
			return err
		}
		return do(ctx, c.Client, b.ownOf(c), opt)
	})
}

// checkForFarm refuses what needs the engine of this process.
func checkForFarm(r Request) error {
	unable := func(what string) error { return fmt.Errorf("%s is not possible on the nodes of a builder", what) }
	switch {
	case r.Runtime != "":
		return unable("--runtime")
	case r.Confine != Confine{}:
		return unable("--security-opt")
	case r.Reproducible:
		return unable("--reproducible")
	case r.CacheSize != 0:
		return unable("--cache-size")
	}
	return nil
}

// prepare finds out what each target reads and which nodes build it.
func (b *onFarm) prepare(ctx context.Context, targets []Target) ([]*farmed, error) {
	if err := checkLinks(targets); err != nil {
		return nil, err
	}
	all := make([]*farmed, len(targets))
	for i, t := range targets {
		r := t.Request
		src, err := locate(ctx, r)
		if err != nil {
			return nil, named(t, err)
		}
		kept, err := src.spool()
		if err != nil {
			return nil, named(t, err)
		}
		wanted, parts, err := b.plan(ctx, r.Platforms)
		if err != nil {
			return nil, named(t, err)
		}
		if r.Platforms = wanted; len(t.Request.Platforms) == 0 && parts[0].Ranks[0] == farm.Native {
			r.Platforms = nil // the node's own, as if nobody had asked
		}
		all[i] = &farmed{onFarm: b, target: t, request: r, src: src, spooled: kept, wanted: wanted, parts: parts, bases: findBases(src, kept, r), rec: newRecorder(time.Now(), entitlements(r))}
	}
	return all, linkOnNodes(all)
}

// linkOnNodes has targets that use each other's results hand them on, on each node by
// itself.
func linkOnNodes(all []*farmed) error {
	there := map[string][]Target{}
	for _, f := range all {
		for _, p := range f.parts {
			there[p.Conn.Node.Name] = append(there[p.Conn.Node.Name], f.target)
		}
	}
	for node, targets := range there {
		if err := checkLinks(targets); err != nil {
			return fmt.Errorf("node %q builds only some of the targets that others use, or of their platforms: %w", node, err)
		}
		l := newLinks(targets)
		for _, f := range all {
			if one := l.of[f.target.Name]; one != nil && !one.alone() {
				f.links = append(f.links, nodeLink{node, one})
			}
		}
	}
	return nil
}

// nodeLink is a target's place among the others on a node.
type nodeLink struct {
	node string
	link *link
}

// build builds the request and hands its result on.
func (f *farmed) build(ctx context.Context) (_ *Result, err error) {
	defer func() { err = errors.Join(err, f.spooled.close()) }()
	res, err := f.run(ctx, f.parts)
	f.report(err)
	return res, err
}

// plan gives platforms to nodes, and tells. Without any it is this machine's platform, if a
// node runs that, else the first node's own.
func (b *onFarm) plan(ctx context.Context, wanted []v1.Platform) ([]v1.Platform, []farm.Part, error) {
	asked := wanted
	if len(asked) == 0 {
		asked = []v1.Platform{platform.Default()}
	}
	parts, err := b.ready(ctx, asked)
	if err != nil {
		return nil, nil, err
	}
	if first := parts[0]; len(wanted) == 0 && first.Ranks[0] > farm.Native {
		asked = first.Conn.Platforms()[:1]
		if parts, err = b.ready(ctx, asked); err != nil {
			return nil, nil, err
		}
	}
	b.tell(asked, parts)
	return asked, parts, nil
}

func (b *onFarm) ready(ctx context.Context, wanted []v1.Platform) ([]farm.Part, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.group.Ready(ctx, wanted)
}

// tell says what is built where, each thing once.
func (b *onFarm) tell(wanted []v1.Platform, parts []farm.Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range farm.Plan(wanted, parts) {
		if !b.told[line] {
			b.say(b.farm.Told, line)
		}
		b.told[line] = true
	}
}

// say tells something, on the display if that is being drawn.
func (b *onFarm) say(to func(string), msg string) {
	if !b.farm.Drawn || b.display == nil || to == nil {
		notify(to, msg)
		return
	}
	now := time.Now()
	b.display.to <- &client.SolveStatus{Vertexes: []*client.Vertex{{
		Digest: digest.FromString(msg), Name: "[note] " + msg, Started: &now, Completed: &now,
	}}}
}

// repositories are those of names, without their tags.
func repositories(names []reference.Named) []string {
	var list []string
	for _, n := range names {
		list = append(list, reference.TrimNamed(n).String())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// reachesOwn says whether a node, like this process, reaches a registry that is at this
// machine's own address; others are reached alike.
func reachesOwn(n farm.Node, names []reference.Named) bool {
	if n.Endpoint == farm.Local {
		return false // its engine leaves that to the caller
	}
	return strings.HasPrefix(n.Endpoint, "unix://") || !slices.ContainsFunc(names, func(ref reference.Named) bool {
		return isLoopback(reference.Domain(ref))
	})
}
