//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/containerd/typeurl/v2"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wherry-oci/wherry/build/executor"
)

// StartError is why a RUN could not be started: its own program never ran. It keeps its
// type across gRPC, as the others here do.
type StartError struct {
	Reason  string // names what is missing or failed
	Missing string // "secret" or "ssh", if the request lacks one
	cause   error
}

func (e *StartError) Error() string { return e.Reason }

func (e *StartError) Unwrap() error { return e.cause }

// ToProto makes the error travel.
func (e *StartError) ToProto() grpcerrors.TypedErrorProto { return &startMessage{StartError: *e} }

// SourceError is why something of the network could not be had: a context or what an ADD
// names.
type SourceError struct {
	URL    string // without credentials and what may be a signature
	Reason string
	cause  error
}

func (e *SourceError) Error() string { return fmt.Sprintf("%q: %s", e.URL, e.Reason) }

func (e *SourceError) Unwrap() error { return e.cause }

// ToProto makes the error travel.
func (e *SourceError) ToProto() grpcerrors.TypedErrorProto { return &sourceMessage{SourceError: *e} }

// NoSpaceError says that the disk of the build state is full; errors.Is finds
// syscall.ENOSPC, also across gRPC.
type NoSpaceError struct{ cause error }

func (e *NoSpaceError) Error() string { return e.cause.Error() }

func (e *NoSpaceError) Unwrap() error { return e.cause }

// Is implements what [errors.Is] looks for.
func (e *NoSpaceError) Is(target error) bool { return target == syscall.ENOSPC }

// ToProto makes the error travel.
func (e *NoSpaceError) ToProto() grpcerrors.TypedErrorProto { return &spaceMessage{} }

// The messages are sent as JSON, by their registered types; the proto.Message is only
// there for the type's sake.
type (
	startMessage struct {
		proto.Message `json:"-"`
		StartError
	}
	sourceMessage struct {
		proto.Message `json:"-"`
		SourceError
	}
	spaceMessage struct {
		proto.Message `json:"-"`
	}
	memoryMessage struct {
		proto.Message `json:"-"`
		OutOfMemoryError
	}
)

func (m *startMessage) WrapError(err error) error {
	return &StartError{Reason: m.Reason, Missing: m.Missing, cause: err}
}

func (m *sourceMessage) WrapError(err error) error {
	return &SourceError{URL: m.URL, Reason: m.Reason, cause: err}
}

func (*spaceMessage) WrapError(err error) error { return &NoSpaceError{cause: err} }

func (m *memoryMessage) WrapError(err error) error {
	return &OutOfMemoryError{ExitCode: m.ExitCode, cause: err}
}

func registerStepErrors() {
	const ours = "github.com/wherry-oci/wherry"
	typeurl.Register((*startMessage)(nil), ours, "build.StartError+json")
	typeurl.Register((*sourceMessage)(nil), ours, "build.SourceError+json")
	typeurl.Register((*spaceMessage)(nil), ours, "build.NoSpaceError+json")
	typeurl.Register((*memoryMessage)(nil), ours, "build.OutOfMemoryError+json")
}

// plainErrors gives errors of steps a type of their own, on their way to the client. The
// operation of a RUN can't do so itself: BuildKit's provenance knows it by its type.
func plainErrors(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil && ctx.Err() == nil {
		err = plainError(err)
	}
	return resp, err
}

func plainError(err error) error {
	_, ran := errors.AsType[*gatewaypb.ExitError](err)
	_, known := errors.AsType[*FileError](err)
	if ran || known {
		return err
	}
	if set, ok := errors.AsType[*executor.SetupError](err); ok {
		return &StartError{Reason: set.Error(), cause: err}
	}
	if errors.Is(err, secrets.ErrNotFound) {
		return &StartError{Reason: around(err, secrets.ErrNotFound), Missing: "secret", cause: err}
	}
	if slow, ok := errors.AsType[*solver.SlowCacheError](err); ok {
		return &FileError{Reason: innermostMessage(errors.Unwrap(slow)), cause: err}
	}
	if op, ok := errors.AsType[*errdefs.OpError](err); ok && wantsSSH(op.Op) {
		return &StartError{Reason: around(err, nil), Missing: "ssh", cause: err}
	}
	if errors.Is(err, syscall.ENOSPC) {
		return &NoSpaceError{cause: err}
	}
	if told, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return &toldError{text: told.GRPCStatus().Message(), cause: err}
	}
	return err
}

// toldError is what the client itself has said, when the engine wanted something of it.
type toldError struct {
	text  string
	cause error
}

func (e *toldError) Error() string { return e.text }

func (e *toldError) Unwrap() error { return e.cause }

// around is the text of the error that wraps inner; that of the innermost one, if inner
// is nil.
func around(err, inner error) string {
	for next := errors.Unwrap(err); next != nil && next != inner; next = errors.Unwrap(err) { //nolint:errorlint // this very one is looked for
		err = next
	}
	return err.Error()
}

func wantsSSH(op *pb.Op) bool {
	return slices.ContainsFunc(op.GetExec().GetMounts(), func(m *pb.Mount) bool {
		return m.SSHOpt != nil && !m.SSHOpt.Optional
	})
}
