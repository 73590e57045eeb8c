//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/userns"
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
// Errors: [*NoDockerfileError], [*NoGitError], [*NotDelegatedError] and plain ones before anything is started,
// [*Error] when the build itself fails, the context's cause when it was cancelled.
func Build(ctx context.Context, store Store, state State, r Request) (out *Result, err error) {
	started := time.Now()
	err = onEngine(ctx, store, state, r, func(ctx context.Context, c *client.Client, own *ownEngine, opt client.SolveOpt) error {
		x, err := newExports(r, own)
		if err != nil {
			return err
		}
		defer x.discard()
		opt.Exports = x.entries
		rec := newRecorder(started, entitlements(r))
		opt.LocalMounts = rec.watch(opt.LocalMounts)
		res, err := solve(ctx, r.Progress, rec, func(status chan *client.SolveStatus) (*client.SolveResponse, error) {
			return c.Solve(ctx, nil, opt, status)
		})
		if err == nil {
			err = x.keep()
		}
		if err == nil {
			out, err = result(res, r)
		}
		rec.finish(ctx, c, pastFile(state, r), r, out, err)
		return err
	})
	return out, err
}

// job is what is done on an engine: own, or if that is nil another process's. It may be
// done again if the engine goes away.
type job func(ctx context.Context, c *client.Client, own *ownEngine, opt client.SolveOpt) error

// onEngine does a job with the request on an engine.
func onEngine(ctx context.Context, store Store, state State, r Request, do job) error {
	src, err := locate(ctx, r)
	if err != nil {
		return err
	}
	src.aside = state.Isolation == IsolationNone
	return withEngine(ctx, store, state, r, func(ctx context.Context, c *client.Client, own *ownEngine) error {
		return withSources(ctx, own, src, r, func(ctx context.Context, opt client.SolveOpt) error { return do(ctx, c, own, opt) })
	})
}

// withSources has use work with what the client needs for a request, until a file of its
// sources can't be read.
func withSources(ctx context.Context, own *ownEngine, src *sources, r Request, use func(ctx context.Context, opt client.SolveOpt) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	opt, err := solveOpt(src, r, fail)
	if err != nil {
		return err
	}
	own.share(src, fail)
	return use(ctx, opt)
}

// share has an engine of this process read the folder of a context directly.
func (e *ownEngine) share(src *sources, fail func(error)) {
	if e == nil || src.folder == "" || src.masked(src.folder) {
		return
	}
	e.ShareFolder(src.sharedKey(), "context", engine.Folder{Dir: src.folder, Fail: func(path string, err error) {
		fail(&UnreadableError{path, err})
	}})
}

// withEngine has use work with an engine for requests like r, and again with another one
// if the first was that of another process and ended.
func withEngine(ctx context.Context, store Store, state State, r Request, use func(ctx context.Context, c *client.Client, own *ownEngine) error) error {
	if err := state.checkLimits(r); err != nil {
		return err
	}
	o, err := engineOptions(store, state, r)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := withClient(ctx, o, func(c *client.Client, own *ownEngine) error {
			err := use(ctx, c, own)
			if err != nil && own == nil && engineGone(err) {
				return errEngineGone
			}
			return err
		})
		if try == maxEngines || !errors.Is(err, errEngineGone) {
			return state.explain(err)
		}
		notify(r.Notice, "the process that ran the build engine has ended: starting again")
	}
}

// errEngineGone says that another process's engine ended under the build.
var errEngineGone = errors.New("the build engine of another process has ended")

func engineOptions(store Store, state State, r Request) (engine.Options, error) {
	mapping := userns.Current()
	o := engine.Options{
		Dir: state.folder(), Store: store, Hosts: r.Hosts, Runtime: r.Runtime, CacheSize: r.CacheSize,
		OwnLabel: r.Confine.OwnLabel, OwnProfile: r.Confine.OwnProfile,
		UserNS: mapping != userns.None, SingleID: mapping == userns.Single, Notice: r.Notice,
		NoMounts: !state.mounts(), NoSteps: state.Isolation == IsolationNone,
	}
	if r.Client != nil {
		o.Transport = r.Client.Transport
	}
	if !o.UserNS || o.NoMounts {
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

// withClient has use work with an engine: own, or if that is nil another process's.
func withClient(ctx context.Context, o engine.Options, use func(c *client.Client, own *ownEngine) error) (err error) {
	conn, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close(ctx, o)) }()
	return use(conn.client, conn.own)
}

// solve runs a build and its display side by side.
func solve(ctx context.Context, p Progress, rec *recorder, run func(chan *client.SolveStatus) (*client.SolveResponse, error)) (*client.SolveResponse, error) {
	d := newDisplay(ctx, p)
	res, err := d.solve(ctx, "", rec, run)
	if shown := d.close(); err == nil {
		err = shown
	}
	return res, err
}

func solveOpt(src *sources, r Request, fail func(error)) (client.SolveOpt, error) {
	session, err := attachables(src, r)
	if err != nil {
		return client.SolveOpt{}, err
	}
	in, err := src.inputs(fail)
	if err != nil {
		return client.SolveOpt{}, err
	}
	attrs := frontendAttrs(r)
	maps.Copy(attrs, in.attrs)
	maps.Copy(attrs, src.vcs)
	if dirs := emulatorDirs(r); len(dirs) > 0 {
		attrs[engine.AttrEmulators] = strings.Join(dirs, string(filepath.ListSeparator))
	}
	if src.epoch != "" {
		attrs[buildArgPrefix+sourceDateEpoch] = src.epoch
	}
	return client.SolveOpt{
		Frontend:            frontend(r, attrs),
		FrontendAttrs:       attrs,
		LocalMounts:         in.mounts,
		OCIStores:           in.stores,
		SharedKey:           src.sharedKey(),
		Session:             append(session, in.session...),
		AllowedEntitlements: entitlements(r),
		CacheImports:        cacheImports(r),
		CacheExports:        cacheExports(r),
	}, nil
}

func result(res *client.SolveResponse, r Request) (*Result, error) {
	out := &Result{Names: slices.Clone(r.Names), Metadata: res.ExporterResponse}
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
