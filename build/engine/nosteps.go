//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"errors"
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
	Step  string // as the progress has it: "RUN make"
	cause error
}

func (e *NoStepsError) Error() string { return e.Step + ": no steps can be run here" }

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
	return &NoStepsError{Step: m.Step, cause: err}
}

func registerNoStepsError() {
	typeurl.Register((*noStepsMessage)(nil), "github.com/wherry-oci/wherry", "build.NoStepsError+json")
}

// noSteps is a frontend whose steps are refused before anything is done: it is asked
// twice, and first told of images that are not looked for, so that not even their names
// are asked about.
type noSteps struct{ frontend.Frontend }

func (f noSteps) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	if _, question := opt["requestid"]; !question {
		res, err := f.Frontend.Solve(ctx, dryBridge{noStepsBridge{llb}}, exec, maps.Clone(opt), inputs, sid, sm)
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
	return f.Frontend.Solve(ctx, noStepsBridge{llb}, exec, opt, inputs, sid, sm)
}

func release(ctx context.Context, res *frontend.Result) error {
	return res.EachRef(func(r solver.ResultProxy) error { return r.Release(ctx) })
}

// located keeps nothing of an error but where it belongs in the Dockerfile.
func located(err error, refused *NoStepsError) error {
	var out error = &NoStepsError{Step: refused.Step}
	for _, s := range errdefs.Sources(err) {
		out = errdefs.WithSource(out, s)
	}
	return out
}

// noStepsBridge refuses whatever has a step to run.
type noStepsBridge struct{ frontend.FrontendLLBBridge }

func (b noStepsBridge) Solve(ctx context.Context, req frontend.SolveRequest, sid string) (*frontend.Result, error) {
	if err := stepsOf(req.Definition); err != nil {
		return nil, err
	}
	return b.FrontendLLBBridge.Solve(ctx, req, sid)
}

// stepsOf refuses the first step of a definition that is to be run.
func stepsOf(d *pb.Definition) error {
	for _, raw := range d.GetDef() {
		var op pb.Op
		if err := op.UnmarshalVT(raw); err != nil || op.GetExec() == nil {
			continue // an error that the solver will find
		}
		id := digest.FromBytes(raw).String()
		name := d.Metadata[id].GetDescription()["llb.customname"]
		if name == "" {
			name = strings.Join(op.GetExec().GetMeta().GetArgs(), " ")
		}
		var err error = &NoStepsError{Step: withoutNumber(name)}
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
		Platform: p, RootFS: ocispecs.RootFS{Type: "layers"},
		Config: ocispecs.ImageConfig{Entrypoint: []string{"/"}}, // a scanner has to have one
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
