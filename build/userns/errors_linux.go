package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// NotPermittedError says why the namespaces can't be made here.
type NotPermittedError struct {
	// Reason is the cause in words, as far as it can be told.
	Reason string
	// Hint is a command that helps, or "" where none is known.
	Hint string
	// Container says that it is a seccomp filter, such as containers have.
	Container bool
	// Err is what the kernel said; errors.Is finds its errno.
	Err error
}

// Error has the reason; the hint is for who prints it.
func (e *NotPermittedError) Error() string { return "namespaces are not permitted: " + e.Reason }

// Unwrap returns what the kernel said.
func (e *NotPermittedError) Unwrap() error { return e.Err }

// NoRangeError says why this user has no range of ids. Namespaces with one id may work all the same.
type NoRangeError struct {
	Reason string
	// Hint is a command that helps, or "" where none is known.
	Hint string
}

func (e *NoRangeError) Error() string { return e.Reason }

func noRange(file, user string) error {
	return &NoRangeError{
		Reason: file + " has no line for user " + user,
		Hint:   "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + user,
	}
}

// notPermitted turns what the kernel says to a refused namespace into a NotPermittedError, and leaves other errors.
// inside says that the namespaces could be made, and the refusal came in them.
func notPermitted(err error, inside bool) error {
	if _, already := errors.AsType[*NotPermittedError](err); already {
		return err
	}
	for _, refusal := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(err, refusal) {
			reason, hint := diagnose(err, inside, setting)
			return &NotPermittedError{Reason: reason, Hint: hint, Container: seccompFiltered(setting("/proc/self/status")), Err: err}
		}
	}
	return err
}

// diagnose looks for the cause among those that can be seen, the most certain first. setting reads a file of /proc.
func diagnose(err error, inside bool, setting func(file string) string) (reason, hint string) {
	const appArmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	switch {
	case inside && setting(appArmor) == "1":
		return "AppArmor restricts user namespaces", allowByAppArmor()
	case setting("/proc/sys/user/max_user_namespaces") == "0":
		return "user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000"
	case setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "kernel.unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"
	case errors.Is(err, unix.ENOSPC):
		return "there are too many user namespaces", "sudo sysctl -w user.max_user_namespaces=15000"
	case errors.Is(err, unix.EUSERS):
		return "user namespaces are nested too deeply", ""
	case inside && errors.Is(err, unix.EINVAL):
		return "the root folder can't be left by pivot_root, as in a chroot or an initramfs", ""
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return "the kernel has no user namespaces", ""
	case seccompFiltered(setting("/proc/self/status")):
		return "a seccomp filter forbids it, as containers have by default", "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ..."
	case setting(appArmor) == "1":
		return "AppArmor restricts user namespaces", allowByAppArmor()
	}
	return err.Error(), ""
}

// allowByAppArmor gives this program a profile as those have that distributions let make user namespaces (Ubuntu 24.04
// and newer): the setting that allows them to everybody is better left as it is.
func allowByAppArmor() string {
	program, err := os.Executable()
	if err != nil {
		program = "/usr/local/bin/wherry"
	}
	return fmt.Sprintf("echo 'abi <abi/4.0>, profile wherry %q flags=(unconfined) { userns, }' | sudo tee /etc/apparmor.d/wherry && "+
		"sudo apparmor_parser -r /etc/apparmor.d/wherry", program)
}

// setting reads a kernel setting; "" where this kernel does not have it.
func setting(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// seccompFiltered says whether a filter judges the system calls of the process with this status.
func seccompFiltered(status string) bool {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "Seccomp:"); ok {
			return strings.TrimSpace(v) == "2"
		}
	}
	return false
}
