//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/typeurl/v2"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/file"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/llbsolver/ops/fileoptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/worker"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// FileError is why a COPY or ADD could not read its source. It keeps its type across
// gRPC.
type FileError struct {
	Reason string // names the path
	cause  error
}

func (e *FileError) Error() string { return e.Reason }

func (e *FileError) Unwrap() error { return e.cause }

// ToProto makes the error travel; grpcerrors puts it together again by WrapError.
func (e *FileError) ToProto() grpcerrors.TypedErrorProto { return &fileMessage{FileError: *e} }

// fileMessage is sent as JSON, by its registered type.
type fileMessage struct {
	proto.Message `json:"-"`
	FileError
}

func (m *fileMessage) WrapError(err error) error {
	return &FileError{Reason: m.Reason, cause: err}
}

func registerFileError() {
	typeurl.Register((*fileMessage)(nil), "github.com/wherry-oci/wherry", "build.FileError+json")
}

// ResolveOp returns BuildKit's operation for a vertex; those of COPY and ADD tell what
// they miss without BuildKit's internal names around it, and steps for another
// architecture are emulated.
func (w *layoutWorker) ResolveOp(v solver.Vertex, bridge frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	if op, err := w.emulatedOp(v, sm); op != nil || err != nil {
		return op, err
	}
	op, err := w.Worker.ResolveOp(v, bridge, sm, proxy)
	if err != nil {
		return nil, err
	}
	if p, ok := v.Sys().(*pb.Op); ok {
		if f, ok := p.Op.(*pb.Op_File); ok {
			return fileOp{Op: op, worker: w.Worker, backend: w.fileBackend, actions: f.File.Actions, refs: file.NewRefManager(w.CacheMgr, v.Name())}, nil
		}
	}
	return op, nil
}

// fileOp is BuildKit's, with a backend of ours.
type fileOp struct {
	solver.Op
	worker  worker.Worker
	backend func() (fileoptypes.Backend, error)
	actions []*pb.FileAction
	refs    *file.RefManager
}

// fileBackend is who works on files, in the way that snapshots want it.
func (w *layoutWorker) fileBackend() (fileoptypes.Backend, error) {
	b, err := newFileBackend()
	files := w.snapshots
	switch {
	case err != nil:
		return nil, err
	case files.aside:
		return &archiveBackend{&asideBackend{b, files.folders}, files}, nil
	case files.mountless, files.noDevices():
		return &archiveBackend{b, files}, nil
	}
	return b, nil
}

// solve is Exec of BuildKit's operation, which has its backend built in.
func (o fileOp) solve(ctx context.Context, jc solver.JobContext, inputs []solver.Result) ([]solver.Result, error) {
	refs := make([]fileoptypes.Ref, len(inputs))
	for i, in := range inputs {
		ref, ok := in.Sys().(*worker.WorkerRef)
		if !ok {
			return nil, fmt.Errorf("input %d of a file operation is a %T", i, in.Sys())
		}
		refs[i] = ref.ImmutableRef
	}
	backend, err := o.backend()
	if err != nil {
		return nil, err
	}
	made, err := ops.NewFileOpSolver(o.worker, backend, o.refs).Solve(ctx, refs, o.actions, jc.Session())
	if err != nil {
		return nil, beyondRange(err)
	}
	results := make([]solver.Result, len(made))
	for i, ref := range made {
		results[i] = worker.NewWorkerRefResult(ref.(cache.ImmutableRef), o.worker)
	}
	return results, nil
}

// beyondRange explains the kernel's "invalid argument" to an owner that a user namespace does not have.
func beyondRange(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok && strings.HasSuffix(e.Op, "chown") && errors.Is(e.Err, unix.EINVAL) {
		return fmt.Errorf("give %q away: the range of this user in /etc/subuid and /etc/subgid does not have its owner's id: %w", e.Path, e.Err)
	}
	return err
}

func (o fileOp) CacheMap(ctx context.Context, jc solver.JobContext, index int) (*solver.CacheMap, bool, error) {
	m, done, err := o.Op.CacheMap(ctx, jc, index)
	if err != nil || m == nil {
		return m, done, err
	}
	for i := range m.Deps {
		if checksum := m.Deps[i].ComputeDigestFunc; checksum != nil {
			m.Deps[i].ComputeDigestFunc = func(ctx context.Context, res solver.Result, g session.Group) (digest.Digest, error) {
				d, err := checksum(ctx, res, g)
				if err != nil {
					return d, &FileError{Reason: innermostMessage(err), cause: err}
				}
				tell(ctx, Facts{Contents: map[int]string{i: d.String()}})
				return d, nil
			}
		}
	}
	return m, done, nil
}

// innermostMessage is the text of the error below BuildKit's "failed to calculate
// checksum of ref ID": that one is a message and a stack, so two links.
func innermostMessage(err error) string {
	for range 2 {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
	}
	return err.Error()
}
