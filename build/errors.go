//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"golang.org/x/sys/unix"
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

// NotLabelledError says why steps keep the label that SELinux gives to this process.
type NotLabelledError = executor.NotLabelledError

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
	// OutOfMemory says that the kernel has killed a process of the step for want of memory.
	OutOfMemory bool
}

func (e *StepError) Error() string {
	signal := ""
	if n := syscall.Signal(e.ExitCode - 128); n > 0 {
		signal = unix.SignalName(n)
	}
	switch {
	case e.OutOfMemory && signal == "SIGKILL":
		return fmt.Sprintf("%s: killed: out of memory (exit code %d)", e.Step, e.ExitCode)
	case e.OutOfMemory:
		return fmt.Sprintf("%s: exit code %d, after one of its processes was killed: out of memory", e.Step, e.ExitCode)
	case signal != "":
		return fmt.Sprintf("%s: killed by %s (exit code %d)", e.Step, signal, e.ExitCode)
	}
	return fmt.Sprintf("%s: exit code %d", e.Step, e.ExitCode)
}

// StartError is a step whose program could not be started; it may lack a secret or an
// agent of the request.
type StartError = engine.StartError

// RefusedError is a step that asks for what it is not allowed.
type RefusedError struct {
	Step   string
	Needs  []string // what [Request.Allow] lacks
	Device string   // what the step requires, though no step is given a device; else ""
}

func (e *RefusedError) Error() string {
	if e.Device != "" {
		return fmt.Sprintf("%s: device %q is required, and steps are given no devices", e.Step, e.Device)
	}
	return e.Step + ": " + strings.Join(e.Needs, " and ") + " is not allowed"
}

// explain makes a failed solve readable: the thing named once, the Dockerfile's lines
// beside it.
func explain(ctx context.Context, err error, seen *witness, p Progress) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &Error{Err: err, Message: engine.WithoutCredentials(message(err)), Shown: p.Mode != "quiet" && p.Mode != "none"}
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
	raw := e.Message
	e.simplify(err, step)
	if seen.remote && step != "" && e.Message == raw { // BuildKit's own words, whose types only the engine here knows
		e.Message = step + ": " + raw
	}
	_, from := errors.AsType[*FromError](err)
	if refused := seen.recorder.refused(); refused != nil && vertex == nil && !from { // BuildKit's own has no type
		e.Message, e.Err = refused.Error(), refused
	}
	return e
}

// simplify puts the one thing that matters into the message, where its type is known.
func (e *Error) simplify(err error, step string) {
	if from, ok := errors.AsType[*FromError](err); ok {
		e.Message, e.Err = from.Error(), from
		return
	}
	if step == "" {
		if at := instruction(err); at != "" {
			e.Message = at + ": " + e.Message
		}
		return
	}
	if source, ok := errors.AsType[*engine.SourceError](err); ok {
		e.Message = step + ": " + source.Reason
		if !strings.HasPrefix(step, "ADD ") { // BuildKit's name for a context
			e.Message = "build context " + source.Error()
		}
	} else if file, ok := errors.AsType[*engine.FileError](err); ok {
		e.Message = step + ": " + file.Reason
	} else if start, ok := errors.AsType[*StartError](err); ok {
		e.Message = step + ": " + start.Reason
	} else if exit, ok := errors.AsType[*gatewaypb.ExitError](err); ok {
		_, short := errors.AsType[*engine.OutOfMemoryError](err)
		s := &StepError{Step: step, ExitCode: int(exit.ExitCode), OutOfMemory: short}
		e.Message, e.Err = s.Error(), s
	}
}

// instruction is the first line of what the frontend does not understand; "" if it does
// not say.
func instruction(err error) string {
	for _, s := range errdefs.Sources(err) {
		if s.Info == nil || len(s.Ranges) == 0 {
			continue
		}
		lines := strings.Split(string(s.Info.Data), "\n")
		if n := int(s.Ranges[0].Start.GetLine()); n > 0 && n <= len(lines) {
			return strings.TrimSpace(lines[n-1])
		}
	}
	return ""
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
