//go:build linux

package build

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
)

// targetPrefix marks a context that is the result of another target.
const targetPrefix = "target:"

// links is how several targets hand their results to each other, as BuildKit's frontend
// inputs: nothing is exported in between.
type links struct {
	of map[string]*link
}

// link is the place of one target among the others.
type link struct {
	needs []*link // by its contexts
	users int     // those that need it
	name  string

	ready  chan struct{}   // closed when result is there
	result *gateway.Result // what it is
	offers []input         // the same for others
	steps  map[string]bool // those that it consists of, by their digests
	used   chan struct{}   // gets one for each user that is done with it
}

// input is a target's result, or that of one platform, in the frontend's words.
type input struct {
	suffix     string // "::PLATFORM" if there are several
	configKey  string // where the result has the image's config
	definition *pb.Definition
	metadata   []byte // the config as JSON; nil if there is none
}

func newLinks(targets []Target) *links {
	l := &links{of: map[string]*link{}}
	for _, t := range targets {
		l.of[t.Name] = &link{name: t.Name, ready: make(chan struct{}), steps: map[string]bool{}, used: make(chan struct{}, len(targets))}
	}
	for _, t := range targets {
		one := l.of[t.Name]
		for _, name := range linked(t.Request) {
			one.needs = append(one.needs, l.of[name])
			l.of[name].users++
		}
	}
	return l
}

// alone says whether nobody has to be waited for.
func (l *link) alone() bool { return l.users == 0 && len(l.needs) == 0 }

// build returns the function that BuildKit's client runs for the target.
func (l *link) build(frontend string, attrs map[string]string) gateway.BuildFunc {
	return func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		inputs, err := l.inputs(ctx, attrs)
		if err != nil {
			return nil, err
		}
		res, err := g.Solve(ctx, gateway.SolveRequest{Frontend: frontend, FrontendOpt: attrs, FrontendInputs: inputs})
		if err != nil {
			return nil, err
		}
		l.result = res
		if err := l.offer(ctx); err != nil {
			return nil, err
		}
		close(l.ready)
		return res, l.serve(ctx)
	}
}

// serve runs the steps, and stays until nobody needs this target's session any more: the
// files of its context are asked for there.
func (l *link) serve(ctx context.Context) error {
	err := l.result.EachRef(func(ref gateway.Reference) error { return ref.Evaluate(ctx) })
	if err != nil {
		return err
	}
	for range l.users {
		select {
		case <-l.used:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, other := range l.needs {
		other.used <- struct{}{}
	}
	return nil
}

// inputs waits for the targets that this one needs, and has the frontend take their
// results for the contexts that name them.
func (l *link) inputs(ctx context.Context, attrs map[string]string) (map[string]*pb.Definition, error) {
	inputs := map[string]*pb.Definition{}
	for _, other := range l.needs {
		select {
		case <-other.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		other.give(attrs, inputs)
	}
	return inputs, nil
}

// offer makes inputs for others of the target's result, of each platform if it has several.
func (l *link) offer(ctx context.Context) error {
	refs := l.result.Refs
	if len(refs) == 0 {
		refs = map[string]gateway.Reference{"": l.result.Ref}
	}
	for platform, ref := range refs {
		in := input{configKey: exptypes.ExporterImageConfigKey}
		if platform != "" {
			in.suffix, in.configKey = "::"+platform, in.configKey+"/"+platform
		}
		var err error
		if in.definition, err = definitionOf(ctx, ref); err != nil {
			return err
		}
		for _, step := range in.definition.Def {
			l.steps[digest.FromBytes(step).String()] = true
		}
		if config, ok := l.result.Metadata[in.configKey]; ok {
			if in.metadata, err = json.Marshal(map[string][]byte{exptypes.ExporterImageConfigKey: config}); err != nil {
				return err
			}
		}
		l.offers = append(l.offers, in)
	}
	return nil
}

// give adds the result to the inputs of another target, in the place of the contexts that
// name it.
func (l *link) give(attrs map[string]string, inputs map[string]*pb.Definition) {
	for key, value := range maps.Clone(attrs) {
		if value != targetPrefix+l.name || !strings.HasPrefix(key, "context:") {
			continue
		}
		delete(attrs, key)
		for _, in := range l.offers {
			name := l.name + in.suffix
			inputs[name] = in.definition
			attrs[key+in.suffix] = "input:" + name
			if in.metadata != nil {
				attrs["input-metadata:"+name] = string(in.metadata)
			}
		}
	}
}

// culprit is the target whose step an error is about: this one, or one that it needs.
func (l *link) culprit(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.vertex != "" {
		if of := l.ownerOf(e.vertex); of != nil {
			return of.name
		}
	}
	return l.name
}

func (l *link) ownerOf(step string) *link {
	for _, other := range l.needs {
		select {
		case <-other.ready:
		default:
			continue
		}
		if of := other.ownerOf(step); of != nil {
			return of
		}
		if other.steps[step] {
			return other
		}
	}
	return nil
}

func definitionOf(ctx context.Context, ref gateway.Reference) (*pb.Definition, error) {
	state := llb.Scratch()
	if ref != nil {
		var err error
		if state, err = ref.ToState(); err != nil {
			return nil, err
		}
	}
	definition, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	return definition.ToPB(), nil
}
