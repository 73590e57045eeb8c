//go:build linux

package build

import (
	"errors"
	"fmt"

	"github.com/wherry-oci/wherry/build/engine"
)

// NoStepsError is a build that has a step to run where none can be: everything else of a
// Dockerfile can be done there.
type NoStepsError struct {
	Step  string // as in the Dockerfile: "RUN make"
	Lower error  // why no isolation that runs steps can be had; nil if none was wanted
}

func (e *NoStepsError) Error() string {
	if e.Lower == nil {
		return e.Step + ": steps are not run with the isolation \"none\""
	}
	return fmt.Sprintf("%s: no step can be run here: %v", e.Step, e.Lower)
}

func (e *NoStepsError) Unwrap() error { return e.Lower }

// explain says why a step was refused.
func (s State) explain(err error) error {
	refused, ok := errors.AsType[*engine.NoStepsError](err)
	if !ok {
		return err
	}
	why := &NoStepsError{Step: refused.Step, Lower: s.Lower}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Message, e.Err = why.Error(), why
		return err
	}
	return why
}
