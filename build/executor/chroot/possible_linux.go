package chroot

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// ImpossibleError says what is missing for steps to be run by chroot.
type ImpossibleError struct {
	// Missing is a privilege or a feature of the kernel: "CAP_SYS_CHROOT", "seccomp user notification".
	Missing string
	// Err is what the kernel said.
	Err error
}

// Error has what is missing and the reason.
func (e *ImpossibleError) Error() string {
	return fmt.Sprintf("%s is not available: %v", e.Missing, e.Err)
}

// Unwrap returns what the kernel said.
func (e *ImpossibleError) Unwrap() error { return e.Err }

// Possible says, by trying, whether this process can run steps by chroot: nil, or an *ImpossibleError. Nothing of the
// process is changed by it.
func Possible() error {
	if unix.Geteuid() != 0 {
		return &ImpossibleError{Missing: "root", Err: unix.EPERM}
	}
	for _, try := range []struct {
		missing string
		f       func() error
	}{
		{"CAP_SYS_CHROOT", func() error { return unix.Chroot("/") }},
		{"CAP_SETUID", needsCapabilities},
		{"openat2", func() error {
			fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
			if err == nil {
				step.Closing(fd)
			}
			return err
		}},
		{"/proc", func() error { return unix.Access("/proc/self/stat", unix.R_OK) }},
		{"seccomp user notification", onOwnThread(tryListening)},
	} {
		if err := try.f(); err != nil {
			return &ImpossibleError{Missing: try.missing, Err: err}
		}
	}
	return nil
}

// needsCapabilities says whether a step's user can be changed to at all.
func needsCapabilities() error {
	had, err := step.Permitted()
	if err == nil && had&(1<<unix.CAP_SETUID) == 0 {
		err = unix.EPERM
	}
	return err
}

// onOwnThread makes f run on a thread that ends with it.
func onOwnThread(f func() error) func() error {
	return func() error {
		result := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // for good
			result <- f()
		}()
		return <-result
	}
}

// tryListening loads a filter that lets everything through, and asks it for what a supervisor needs: to hand over a
// descriptor and answer in one go, which is there since Linux 5.14.
func tryListening() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}})
	if err != nil {
		return err
	}
	fd, err := seccomp.Listen([]unix.SockFilter{{Code: raw[0].Op, K: raw[0].K}})
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	add := addFile{Flags: unix.SECCOMP_ADDFD_FLAG_SEND}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&add)))
	if errno != 0 && !errors.Is(errno, unix.ENOENT) { // there is no call with that number
		return errno
	}
	return nil
}
