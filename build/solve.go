//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/userns"
	"github.com/wherry-oci/wherry/platform"
)

// Store is the image store that a build reads FROM and names its result in; package
// layout has one.
type Store = engine.Store

// Source is a result as Store's Adopt is given it.
type Source = engine.Source

// maxEngines bounds how often a build starts over because the engine it had joined
// went away.
const maxEngines = 5

// Build runs one request. The state folder keeps the build cache; it has to be on the
// store's file system for blobs to be linked instead of copied, and may be used by
// several builds at once.
//
// Errors: [*NoDockerfileError] and plain ones before anything is started, [*Error]
// when the build itself fails, the context's cause when it was cancelled.
func Build(ctx context.Context, store Store, stateDir string, r Request) (*Result, error) {
	src, err := locate(r)
	if err != nil {
		return nil, err
	}
	o, err := engineOptions(store, stateDir, r)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		res, err := buildOnce(ctx, o, src, r)
		if try == maxEngines || !errors.Is(err, errEngineGone) {
			return res, err
		}
		notify(r.Notice, "the process that ran the build engine has ended: starting again")
	}
}

// errEngineGone says that another process's engine ended under the build.
var errEngineGone = errors.New("the build engine of another process has ended")

func engineOptions(store Store, stateDir string, r Request) (engine.Options, error) {
	mapping := userns.Current()
	o := engine.Options{
		Dir: stateFolder(stateDir, mapping), Store: store, Hosts: r.Hosts, Runtime: r.Runtime,
		UserNS: mapping != userns.None, SingleID: mapping == userns.Single, Notice: r.Notice,
	}
	if !o.UserNS {
		return o, nil
	}
	mountable, err := executor.ProcMountable()
	if err != nil {
		return o, fmt.Errorf("try to mount /proc: %w", err)
	}
	if o.HostPID = !mountable; o.HostPID {
		notify(r.Notice, "the outer container hides parts of /proc: steps see this container's processes")
	}
	return o, nil
}

func buildOnce(ctx context.Context, o engine.Options, src sources, r Request) (_ *Result, err error) {
	conn, err := connect(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.close(ctx, r.Notice)) }()
	targets := newTargets(r)
	defer targets.discard()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	opt, err := solveOpt(src, r, targets, fail)
	if err != nil {
		return nil, err
	}
	res, err := solve(ctx, conn.client, opt, r.Progress)
	if err != nil {
		if conn.own == nil && engineGone(err) {
			return nil, errEngineGone
		}
		return nil, err
	}
	if err := targets.keep(); err != nil {
		return nil, err
	}
	return result(res, r)
}

// solve runs the build and its display side by side.
func solve(ctx context.Context, c *client.Client, opt client.SolveOpt, p Progress) (*client.SolveResponse, error) {
	status := make(chan *client.SolveStatus)
	seen := newWitness()
	var res *client.SolveResponse
	var eg errgroup.Group
	eg.Go(func() error { return show(ctx, p, seen, status) })
	res, err := c.Solve(ctx, nil, opt, status)
	if shown := eg.Wait(); err == nil && shown != nil {
		err = shown
	}
	if err != nil {
		return nil, explain(ctx, err, seen, p)
	}
	return res, nil
}

func solveOpt(src sources, r Request, t *targets, fail func(error)) (client.SolveOpt, error) {
	session, err := attachables(r)
	if err != nil {
		return client.SolveOpt{}, err
	}
	mounts, err := src.mounts(fail)
	if err != nil {
		return client.SolveOpt{}, err
	}
	return client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: frontendAttrs(src, r),
		LocalMounts:   mounts,
		SharedKey:     src.sharedKey(),
		Session:       session,
		Exports:       t.exports,
	}, nil
}

func frontendAttrs(src sources, r Request) map[string]string {
	a := map[string]string{"filename": src.filename, "target": r.Target}
	for k, v := range r.BuildArgs {
		a["build-arg:"+k] = v
	}
	for k, v := range r.Labels {
		a["label:"+k] = v
	}
	var platforms []string
	for _, p := range r.Platforms {
		platforms = append(platforms, platform.Format(p))
	}
	if len(platforms) > 0 {
		a["platform"] = strings.Join(platforms, ",")
	}
	if r.NoCache {
		a["no-cache"] = "" // every stage
	}
	if r.Pull {
		a["image-resolve-mode"] = "pull"
	}
	maps.DeleteFunc(a, func(k, v string) bool { return v == "" && k == "target" })
	return a
}

// targets are the outputs of one build and the files among them.
type targets struct {
	exports []client.ExportEntry
	files   []*destination
}

func newTargets(r Request) *targets {
	outputs := r.Outputs
	if len(outputs) == 0 {
		outputs = []Output{{Type: OutputImage}}
	}
	t := &targets{}
	for _, o := range outputs {
		if o.Type != OutputCacheOnly {
			t.exports = append(t.exports, t.export(o, r))
		}
	}
	return t
}

func (t *targets) export(o Output, r Request) client.ExportEntry {
	e := client.ExportEntry{Type: o.Type, Attrs: maps.Clone(o.Attrs)}
	if e.Attrs == nil {
		e.Attrs = map[string]string{}
	}
	if o.toStore() {
		e.Type = client.ExporterImage
	}
	if e.Type == client.ExporterImage || e.Type == client.ExporterOCI || e.Type == client.ExporterDocker {
		if e.Attrs["name"] == "" {
			e.Attrs["name"] = joinNames(r)
		}
	}
	if e.Type == client.ExporterImage && e.Attrs["oci-mediatypes"] == "" {
		e.Attrs["oci-mediatypes"] = "true"
	}
	switch {
	case o.toStore():
	case o.Type == OutputLocal:
		e.OutputDir = o.Dest
	case o.Dest == "-":
		e.Output = func(map[string]string) (io.WriteCloser, error) { return unclosed{r.Stdout}, nil }
	default:
		d := &destination{path: o.Dest}
		t.files = append(t.files, d)
		e.Output = func(map[string]string) (io.WriteCloser, error) { return d.open() }
	}
	return e
}

func joinNames(r Request) string {
	names := make([]string, len(r.Names))
	for i, n := range r.Names {
		names[i] = n.String()
	}
	return strings.Join(names, ",")
}

func (t *targets) keep() error {
	for _, f := range t.files {
		if err := f.keep(); err != nil {
			return err
		}
	}
	return nil
}

func (t *targets) discard() {
	for _, f := range t.files {
		f.discard()
	}
}

func result(res *client.SolveResponse, r Request) (*Result, error) {
	out := &Result{Names: slices.Clone(r.Names)}
	d := res.ExporterResponse[exptypes.ExporterImageDigestKey]
	if d == "" {
		return out, nil
	}
	var err error
	if out.Digest, err = v1.NewHash(d); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return out, nil
}
