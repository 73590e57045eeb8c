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

// NoEmulatorError is a build that has a step to run for a platform that nothing here runs steps for. Stages for it that
// only copy can be built.
type NoEmulatorError struct {
	Step     string // as in the Dockerfile: "RUN make"; "" if it is not about one
	Platform string // "linux/arm64"
	Reason   string
	// Own says that an emulator which is installed, or in a folder that is named, would do: nothing has to be registered.
	Own bool
}

func (e *NoEmulatorError) Error() string {
	if e.Step == "" {
		return fmt.Sprintf("no steps can be run for %s: %s", e.Platform, e.Reason)
	}
	return fmt.Sprintf("%s: no steps can be run for %s: %s", e.Step, e.Platform, e.Reason)
}

// explain says why a step was refused.
func (s State) explain(err error) error {
	refused, ok := errors.AsType[*engine.NoStepsError](err)
	if !ok {
		return err
	}
	var why error = &NoStepsError{Step: refused.Step, Lower: s.Lower}
	if none := refused.NoWay; none != nil {
		why = &NoEmulatorError{Step: refused.Step, Platform: refused.Platform, Reason: none.Reason, Own: none.Own}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Message, e.Err = why.Error(), why
		return err
	}
	return why
}
