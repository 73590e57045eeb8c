//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/executor"
)

// FromError says why the image of a FROM could not be had.
type FromError = engine.FromError

// NotDelegatedError says that steps can't have limits here: this process may not divide
// the control group that it is in.
type NotDelegatedError = executor.NotDelegatedError

// The reasons of a [FromError].
const (
	FromNotFound    = engine.NotFound
	FromDenied      = engine.Denied
	FromUnreachable = engine.Unreachable
	FromNoPlatform  = engine.NoPlatform
)

// Error is a build that failed on its way, after it was accepted.
type Error struct {
	Message string   // what failed, in one line
	Excerpt string   // the Dockerfile's lines that are concerned, marked; "" if none are known
	Output  []string // the last lines a failed step printed
	Shown   bool     // the progress display has printed Output already
	Err     error    // cause, with its type: [*FromError], [*StepError] or BuildKit's

	vertex string // digest of the step; "" if it was none
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// StepError is a step of the Dockerfile that ended with something else than 0.
type StepError struct {
	Step     string // as in the Dockerfile: "RUN make"
	ExitCode int    // 128+n for signal n
	NoMemory bool   // it was killed because its memory was used up
}

func (e *StepError) Error() string {
	if e.NoMemory {
		return fmt.Sprintf("%s: out of memory: killed by signal %d (exit code %d)", e.Step, e.ExitCode-128, e.ExitCode)
	}
	if e.ExitCode > 128 && e.ExitCode < 128+65 {
		return fmt.Sprintf("%s: killed by signal %d (exit code %d)", e.Step, e.ExitCode-128, e.ExitCode)
	}
	return fmt.Sprintf("%s: exit code %d", e.Step, e.ExitCode)
}

// explain makes a failed solve readable: the thing named once, the Dockerfile's lines
// beside it.
func explain(ctx context.Context, err error, seen *witness, p Progress) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &Error{Err: err, Message: message(err), Shown: p.Mode != "quiet" && p.Mode != "none"}
	if sources := errdefs.Sources(err); len(sources) > 0 {
		var b strings.Builder
		if sources[0].Print(&b) == nil {
			e.Excerpt = b.String()
		}
	}
	var step string
	var vertex *errdefs.VertexError
	if errors.As(err, &vertex) {
		e.vertex = vertex.Vertex.Digest
		step, e.Output = seen.step(e.vertex)
	}
	var from *FromError
	var file *engine.FileError
	var exit *gatewaypb.ExitError
	switch {
	case errors.As(err, &from):
		e.Message, e.Err = from.Error(), from
	case errors.As(err, &file) && step != "":
		e.Message = step + ": " + file.Reason
	case errors.As(err, &exit) && step != "":
		s := &StepError{Step: step, ExitCode: int(exit.ExitCode), NoMemory: errors.As(err, new(*engine.OutOfMemoryError))}
		e.Message, e.Err = s.Error(), s
	}
	return e
}

// message is the text of an error that came through gRPC, without the client's and
// gRPC's own words in front.
func message(err error) string {
	if s := grpcStatus(err); s != nil {
		return s.Message()
	}
	return err.Error()
}

// engineGone reports whether the engine ended under a build that had joined it.
func engineGone(err error) bool {
	s := grpcStatus(err)
	return s != nil && s.Code() == codes.Unavailable
}

// grpcStatus is what gRPC said, below what was wrapped around it here; nil if err did
// not come through gRPC.
func grpcStatus(err error) *status.Status {
	for ; err != nil; err = errors.Unwrap(err) {
		if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
			return s.GRPCStatus()
		}
	}
	return nil
}
