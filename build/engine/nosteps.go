//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
)

// NoStepsError says that a build has a step to run where none can be. It keeps its type
// across gRPC.
type NoStepsError struct {
	Step string // as the progress has it: "RUN make"
	// Platform is what the step would be for, and NoWay why none can be run for that: where
	// others can. nil: there are none at all.
	Platform string
	NoWay    *NoWayError
	cause    error
}

func (e *NoStepsError) Error() string {
	if e.NoWay != nil {
		return fmt.Sprintf("%s: no steps can be run for %s: %v", e.Step, e.Platform, e.NoWay)
	}
	return e.Step + ": no steps can be run here"
}

func (e *NoStepsError) Unwrap() error { return e.cause }

// ToProto makes the error travel; grpcerrors puts it together again by WrapError.
func (e *NoStepsError) ToProto() grpcerrors.TypedErrorProto {
	return &noStepsMessage{NoStepsError: *e}
}

// noStepsMessage is sent as JSON, by its registered type.
type noStepsMessage struct {
	proto.Message `json:"-"`
	NoStepsError
}

func (m *noStepsMessage) WrapError(err error) error {
	e := m.NoStepsError
	e.cause = err
	return &e
}

func registerNoStepsError() {
	typeurl.Register((*noStepsMessage)(nil), "github.com/wherry-oci/wherry", "build.NoStepsError+json")
}

// refusal says why a step can't be run; nil if it can.
type refusal func(ctx context.Context, op *pb.Op) *NoStepsError

// everyStep refuses all.
func everyStep(context.Context, *pb.Op) *NoStepsError { return &NoStepsError{} }

// noSteps is a frontend of which some steps are refused before anything is done: it is
// asked twice, and first told of images that are not looked for, so that not even their
// names are asked about.
type noSteps struct {
	frontend.Frontend
	refuse func(opt map[string]string) (refusal, bool) // false: there is nothing to be asked first
}

func (f noSteps) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	refuse, likely := f.refuse(opt)
	bridge := noStepsBridge{llb, refuse}
	if _, question := opt["requestid"]; likely && !question {
		res, err := f.Frontend.Solve(ctx, dryBridge{bridge}, exec, maps.Clone(opt), inputs, sid, sm)
		if refused, ok := errors.AsType[*NoStepsError](err); ok {
			return nil, located(err, refused)
		}
		if err == nil { // what is wrong otherwise, the second time tells
			err = release(ctx, res)
		}
		if err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return f.Frontend.Solve(ctx, bridge, exec, opt, inputs, sid, sm)
}

func release(ctx context.Context, res *frontend.Result) error {
	return res.EachRef(func(r solver.ResultProxy) error { return r.Release(ctx) })
}

// located keeps nothing of an error but where it belongs in the Dockerfile.
func located(err error, refused *NoStepsError) error {
	var out error = &NoStepsError{Step: refused.Step, Platform: refused.Platform, NoWay: refused.NoWay}
	for _, s := range errdefs.Sources(err) {
		out = errdefs.WithSource(out, s)
	}
	return out
}

// noStepsBridge refuses whatever has a step that can't be run.
type noStepsBridge struct {
	frontend.FrontendLLBBridge
	refuse refusal
}

func (b noStepsBridge) Solve(ctx context.Context, req frontend.SolveRequest, sid string) (*frontend.Result, error) {
	if err := b.stepsOf(ctx, req.Definition); err != nil {
		return nil, err
	}
	return b.FrontendLLBBridge.Solve(ctx, req, sid)
}

// stepsOf refuses the first step of a definition that can't be run.
func (b noStepsBridge) stepsOf(ctx context.Context, d *pb.Definition) error {
	for _, raw := range d.GetDef() {
		var op pb.Op
		if err := op.UnmarshalVT(raw); err != nil || op.GetExec() == nil {
			continue // an error that the solver will find
		}
		refused := b.refuse(ctx, &op)
		if refused == nil {
			continue
		}
		id := digest.FromBytes(raw).String()
		name := d.Metadata[id].GetDescription()["llb.customname"]
		if name == "" {
			name = strings.Join(op.GetExec().GetMeta().GetArgs(), " ")
		}
		refused.Step = withoutNumber(name)
		var err error = refused
		for _, l := range slices.Backward(d.GetSource().GetLocations()[id].GetLocations()) {
			if n := int(l.SourceIndex); n >= 0 && n < len(d.Source.Infos) {
				err = errdefs.WithSource(err, &errdefs.Source{Info: d.Source.Infos[n], Ranges: l.Ranges})
			}
		}
		return err
	}
	return nil
}

// withoutNumber is "RUN make" of "[2/3] RUN make".
func withoutNumber(name string) string {
	if _, step, ok := strings.Cut(name, "] "); ok && strings.HasPrefix(name, "[") {
		return step
	}
	return name
}

// dryBridge knows of every image that it has nothing in it.
type dryBridge struct{ noStepsBridge }

func (b dryBridge) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	scheme, _, _ := strings.Cut(op.Identifier, "://")
	if scheme != "docker-image" && scheme != "oci-layout" {
		return b.FrontendLLBBridge.ResolveSourceMetadata(ctx, op, opt)
	}
	p := platforms.DefaultSpec()
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		p = *opt.ImageOpt.Platform
	}
	config, err := json.Marshal(ocispecs.Image{
		Platform: p,
		RootFS:   ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("")}}, // without any it is no image, and has no platform
		Config:   ocispecs.ImageConfig{Entrypoint: []string{"/"}},                                  // a scanner has to have one
	})
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{
		Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: digest.FromBytes(config), Config: config},
	}, nil
}

func (dryBridge) Warn(context.Context, digest.Digest, string, frontend.WarnOpts) error { return nil }

// noStepsExecutor is for what the frontends' bridge does not see.
type noStepsExecutor struct{}

func (noStepsExecutor) Run(_ context.Context, _ string, _ executor.Mount, _ []executor.Mount, p executor.ProcessInfo, _ chan<- struct{}) (resourcestypes.Recorder, error) {
	return nil, &NoStepsError{Step: strings.Join(p.Meta.Args, " ")}
}

func (noStepsExecutor) Exec(_ context.Context, _ string, p executor.ProcessInfo) error {
	return &NoStepsError{Step: strings.Join(p.Meta.Args, " ")}
}

// noImages stands for frontends that are images: they would have to be run.
type noImages struct{}

func (noImages) Solve(_ context.Context, _ frontend.FrontendLLBBridge, _ executor.Executor, opt map[string]string, _ map[string]*pb.Definition, _ string, _ *session.Manager) (*frontend.Result, error) {
	return nil, &NoStepsError{Step: "frontend " + opt[frontend.KeySource]}
}
