//go:build linux

package userns

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDiagnose names each cause that can be seen, in machines that are only described.
func TestDiagnose(t *testing.T) {
	const filtered, free = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", "Seccomp:\t0\n"
	for _, tt := range []struct {
		inside       bool
		err          error
		settings     map[string]string
		reason, hint string
	}{
		{false, unix.EPERM, map[string]string{"/proc/sys/user/max_user_namespaces": "0"}, "user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000"},
		{false, unix.EPERM, map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{false, unix.EACCES, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor restricts user namespaces", allowByAppArmor()},
		{true, unix.EPERM, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1", "/proc/self/status": filtered}, "AppArmor restricts user namespaces", allowByAppArmor()},
		{false, unix.ENOSPC, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "there are too many user namespaces", "sudo sysctl -w user.max_user_namespaces=15000"},
		{false, unix.EUSERS, nil, "user namespaces are nested too deeply", ""},
		{true, unix.EINVAL, nil, "the root folder can't be left by pivot_root, as in a chroot or an initramfs", ""},
		{false, unix.EINVAL, nil, "the kernel has no user namespaces", ""},
		{false, unix.EPERM, map[string]string{"/proc/self/status": filtered}, "a seccomp filter forbids it, as containers have by default", "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ..."},
		{false, unix.EPERM, map[string]string{"/proc/self/status": free}, "operation not permitted", ""},
	} {
		reason, hint := diagnose(fmt.Errorf("wrapped: %w", tt.err), tt.inside, func(file string) string { return tt.settings[file] })
		if tt.reason == "operation not permitted" {
			tt.reason = "wrapped: " + tt.reason
		}
		if reason != tt.reason || hint != tt.hint {
			t.Errorf("%v: %q, %q; want %q, %q", tt.err, reason, hint, tt.reason, tt.hint)
		}
	}
	var denied *NotPermittedError
	if err := notPermitted(fmt.Errorf("x: %w", unix.EPERM), false); !errors.As(err, &denied) || !errors.Is(err, unix.EPERM) {
		t.Errorf("%v is no NotPermittedError", err)
	}
	if err := notPermitted(unix.ENOENT, false); errors.As(err, &denied) {
		t.Errorf("%v is a NotPermittedError", err)
	}
}
