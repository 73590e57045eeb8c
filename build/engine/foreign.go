//go:build linux

package engine

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/linuxresources"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// AttrEmulators is an attribute of frontends that BuildKit does not have: folders in which emulators are looked for
// before those of PATH, as a list like that. It is in the description of steps, too.
const AttrEmulators = "wherry-emulators"

// buildkitEmulator is where BuildKit puts an emulator into a step whose first program it is to run. It finds none but
// those that are named buildkit-qemu-ARCH, and none for what that program starts.
const buildkitEmulator = "/dev/.buildkit_qemu_emulator"

// foreignSteps is a frontend whose steps for other architectures are refused where they can't be run, and know where
// their emulators are.
type foreignSteps struct {
	frontend.Frontend
	emulation *Emulation
	inside    bool // it is no image, and so can be asked without anything being pulled or run
}

func (f foreignSteps) Solve(ctx context.Context, llb frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	own := maps.Clone(opt)
	dirs := own[AttrEmulators]
	delete(own, AttrEmulators)
	steps := noSteps{f.Frontend, func(opt map[string]string) (refusal, bool) {
		return f.emulation.refusal(dirs), f.inside && f.impossible(ctx, opt["platform"], dirs)
	}}
	return steps.Solve(ctx, describingBridge{llb, dirs}, exec, own, inputs, sid, sm)
}

// impossible says whether steps for any of the platforms can't be run.
func (f foreignSteps) impossible(ctx context.Context, list, dirs string) bool {
	for name := range strings.SplitSeq(list, ",") {
		p, err := platforms.Parse(name)
		if err != nil {
			continue // the frontend tells
		}
		if _, err := f.emulation.For(ctx, p.Architecture, filepath.SplitList(dirs)); err != nil {
			return true
		}
	}
	return false
}

// refusal refuses steps for architectures that nothing runs here.
func (e *Emulation) refusal(dirs string) refusal {
	return func(ctx context.Context, op *pb.Op) *NoStepsError {
		arch := op.GetPlatform().GetArchitecture()
		if arch == "" {
			return nil
		}
		_, err := e.For(ctx, arch, filepath.SplitList(dirs))
		if none, ok := errors.AsType[*NoWayError](err); ok {
			return &NoStepsError{Platform: formatOf(op.Platform), NoWay: none}
		}
		return nil
	}
}

func formatOf(p *pb.Platform) string {
	return platforms.Format(platforms.Normalize(ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}))
}

// describingBridge writes into the description of each step where its emulators are. A
// description is no part of a step's digest.
type describingBridge struct {
	frontend.FrontendLLBBridge
	dirs string
}

func (b describingBridge) Solve(ctx context.Context, req frontend.SolveRequest, sid string) (*frontend.Result, error) {
	for _, raw := range req.Definition.GetDef() {
		var op pb.Op
		if b.dirs == "" || op.UnmarshalVT(raw) != nil || op.GetExec() == nil {
			continue
		}
		if meta := req.Definition.Metadata[digest.FromBytes(raw).String()]; meta != nil {
			meta.Description = maps.Clone(meta.Description)
			if meta.Description == nil {
				meta.Description = map[string]string{}
			}
			meta.Description[AttrEmulators] = b.dirs
		}
	}
	return b.FrontendLLBBridge.Solve(ctx, req, sid)
}

// emulatedOp is the operation of a step for another architecture; nil if the vertex is none.
func (w *layoutWorker) emulatedOp(v solver.Vertex, sm *session.Manager) (solver.Op, error) {
	p, ok := v.Sys().(*pb.Op)
	if !ok || w.emulation == nil || p.GetExec() == nil || p.GetPlatform().GetArchitecture() == "" || p.Platform.Architecture == runtime.GOARCH {
		return nil, nil
	}
	run := &emulatedSteps{
		Executor: w.Executor(), emulation: w.emulation, with: w.withFormats, platform: p.Platform,
		dirs: filepath.SplitList(v.Options().Description[AttrEmulators]),
	}
	var limits *pb.LinuxResources
	if m, ok := v.Options().Metadata.(*linuxresources.Metadata); ok && m != nil {
		limits = m.LinuxResources
	}
	return ops.NewExecOp(v, p.Op.(*pb.Op_Exec), p.Platform, w.CacheMgr, w.ParallelismSem, sm, run, w.Worker, limits, false)
}

// emulatedSteps runs steps for another architecture.
type emulatedSteps struct {
	executor.Executor
	emulation *Emulation
	with      func(formats []string) executor.Executor
	platform  *pb.Platform
	dirs      []string
}

// Run implements [executor.Executor].
func (s *emulatedSteps) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if args := p.Meta.Args; len(args) > 1 && args[0] == buildkitEmulator {
		p.Meta.Args = args[1:]
		mounts = slices.DeleteFunc(slices.Clone(mounts), func(m executor.Mount) bool { return m.Dest == buildkitEmulator })
	}
	way, err := s.emulation.For(ctx, s.platform.Architecture, s.dirs)
	if none, ok := errors.AsType[*NoWayError](err); ok {
		return nil, &NoStepsError{Step: strings.Join(p.Meta.Args, " "), Platform: formatOf(s.platform), NoWay: none}
	}
	run := s.Executor
	if way.Emulator != "" && !way.Registered {
		run = s.with(s.emulation.Formats(ctx, s.dirs))
	}
	return run.Run(ctx, id, root, mounts, p, started)
}
