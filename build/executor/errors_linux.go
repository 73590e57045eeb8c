package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/moby/buildkit/executor"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// SetupError says that a step could not be set up: its own program never ran. errors.Is finds the kernel's errno
// (and with it fs.ErrPermission, fs.ErrNotExist) behind it. Op is what was being done, with its operand: "mount
// /proc", `exec "/bin/sh"`; Err is the reason.
type SetupError = step.SetupError

// missingSource says which mount can't be made, if err is that of a folder or file which BuildKit wanted to mount.
func missingSource(err error, mounts []executor.Mount) error {
	at, ok := errors.AsType[*fs.PathError](err)
	if !ok {
		return err
	}
	for _, m := range mounts {
		if m.Selector != "" && path.Clean("/"+m.Selector) == path.Clean("/"+at.Path) {
			return &SetupError{Op: fmt.Sprintf("mount %q from %q", m.Dest, path.Clean("/"+m.Selector)), Err: at.Err}
		}
	}
	return err
}
