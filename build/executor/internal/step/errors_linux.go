package step

import (
	"context"
	"errors"
	"fmt"
	"slices"

	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
)

// SetupError says that a step could not be set up: its own program never ran. errors.Is finds the kernel's errno
// (and with it fs.ErrPermission, fs.ErrNotExist) behind it.
type SetupError struct {
	// Op is what was being done, with its operand: "mount /proc", `exec "/bin/sh"`.
	Op string
	// Err is the reason.
	Err error
}

// Error has the operation, with its operand, and the reason.
func (e *SetupError) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *SetupError) Unwrap() error { return e.Err }

// Setup wraps err in a SetupError, unless something nearer to the cause has already said what was being done.
func Setup(err error, format string, args ...any) error {
	var s *SetupError
	if err == nil || errors.As(err, &s) {
		return err
	}
	return &SetupError{Op: fmt.Sprintf(format, args...), Err: err}
}

// exitError turns an exit code into what BuildKit expects: nil for a valid one.
func exitError(ctx context.Context, code int, valid []int) error {
	if valid == nil {
		valid = []int{0}
	}
	if slices.Contains(valid, code) {
		return nil
	}
	ee := &gatewayapi.ExitError{ExitCode: uint32(code)}
	if ctx.Err() != nil {
		ee.Err = fmt.Errorf("%s: %w", ee.Error(), context.Cause(ctx))
	}
	return ee
}
