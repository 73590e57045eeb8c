package executor

import "github.com/wherry-oci/wherry/build/executor/internal/step"

// SetupError says that a step could not be set up: its own program never ran. errors.Is finds the kernel's errno
// (and with it fs.ErrPermission, fs.ErrNotExist) behind it. Op is what was being done, with its operand: "mount
// /proc", `exec "/bin/sh"`; Err is the reason.
type SetupError = step.SetupError
