package chroot

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What came with which ABI of Landlock.
const (
	landlockRefer    = 2 // moving files between folders: before, a confined process could not do that at all
	landlockTruncate = 3
	landlockDevices  = 5 // ioctl on devices
	landlockScopes   = 6 // signals and abstract sockets stay within
)

// landlockABI is what this kernel's Landlock can do, 0 if there is none or it can't be used.
func landlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || abi < landlockRefer {
		return 0
	}
	return int(abi)
}

// landlock confines this thread, and what it becomes, to what lies below the folder root: other files can't be opened,
// and processes outside can be neither traced nor, from landlockScopes on, signalled or met at an abstract socket.
func landlock(root int, abi int) error {
	access := uint64(unix.LANDLOCK_ACCESS_FS_REFER<<1 - 1)
	if abi >= landlockTruncate {
		access |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= landlockDevices {
		access |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	attr := unix.LandlockRulesetAttr{Access_fs: access}
	size := unsafe.Sizeof(attr.Access_fs) // all that the first ABIs know
	if abi >= landlockScopes {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size = unsafe.Sizeof(attr)
	}
	rules, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return errno
	}
	defer func() { _ = unix.Close(int(rules)) }() // it has no state that could be lost
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(root)}
	_, _, errno = unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, rules, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if _, _, errno = unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
