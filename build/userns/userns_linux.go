package userns

import "os"

// InitArg0 is os.Args[0] of the child that waits for its id maps.
const InitArg0 = "wherry-userns"

// Mapping says which ids a process can use.
type Mapping int

const (
	// None means that ids are the machine's own: no user namespace.
	None Mapping = iota
	// Range means a user namespace with many ids.
	Range
	// Single means a user namespace in which only id 0 exists.
	Single
)

// Options say how to enter.
type Options struct {
	// SingleID maps one id only, even where newuidmap would give a range.
	SingleID bool
	// Notice is told, once, why a range of ids could not be had; may be nil.
	Notice func(msg string)
}

// NotPermittedError says why no user or mount namespace may be made here.
type NotPermittedError struct {
	// Reason is one clause, without the operand.
	Reason string
	// Hint is a command that helps, or "".
	Hint string
	// Err is what the kernel said.
	Err error
}

func (e *NotPermittedError) Error() string { return "user namespace not permitted: " + e.Reason }

func (e *NotPermittedError) Unwrap() error { return e.Err }

// Enter re-executes this program, with the same arguments, as root of a new mount namespace (and user namespace,
// where the caller is not privileged) and returns its exit code (128+n if signal n ended it). entered is false where nothing had to be done: already inside.
func Enter(o Options) (code int, entered bool, err error) { return 0, false, nil }

// Init waits for the id maps and runs the program again. It never returns.
func Init() { os.Exit(125) }

// Current says how this process stands.
func Current() Mapping { return None }

// FakeOwnership makes every chown of this process, and of those it starts, succeed without doing anything.
func FakeOwnership() error { return nil }
