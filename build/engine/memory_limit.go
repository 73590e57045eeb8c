//go:build linux

package engine

import (
	"context"
	"errors"

	"github.com/containerd/typeurl/v2"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/util/grpcerrors"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// OutOfMemoryError is why the kernel killed a step. It keeps its type across gRPC.
type OutOfMemoryError struct{ cause error }

func (*OutOfMemoryError) Error() string { return "out of memory" }

func (e *OutOfMemoryError) Unwrap() error { return e.cause }

// ToProto makes the error travel; grpcerrors puts it together again by WrapError.
func (e *OutOfMemoryError) ToProto() grpcerrors.TypedErrorProto { return &memoryMessage{} }

// memoryMessage is sent as JSON, by its registered type.
type memoryMessage struct {
	proto.Message `json:"-"`
}

func (*memoryMessage) WrapError(err error) error { return &OutOfMemoryError{cause: err} }

func registerMemoryError() {
	typeurl.Register((*memoryMessage)(nil), "github.com/wherry-oci/wherry", "build.OutOfMemoryError+json")
}

// memoryTeller is an executor whose steps' want of memory, which executors tell by ENOMEM,
// is told to the client.
type memoryTeller struct{ executor.Executor }

func (t memoryTeller) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	rec, err := t.Executor.Run(ctx, id, root, mounts, p, started)
	if errors.Is(err, unix.ENOMEM) {
		err = &OutOfMemoryError{cause: err}
	}
	return rec, err
}
