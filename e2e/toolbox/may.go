package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// may tries system calls that need privileges, and prints a line for each: NAME: yes, or what the kernel says.
// Each but chroot is called so that it can't succeed in doing anything.
func may(names []string) error {
	runtime.LockOSThread() // never unlocked: what a call has done to the thread ends with it
	calls := map[string]func() error{
		"unshare": func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"unfs":    func() error { return unix.Unshare(unix.CLONE_FS) },
		"mount":   func() error { return unix.Mount("none", "/nowhere", "tmpfs", 0, "") },
		"umount":  func() error { return unix.Unmount("/nowhere", 0) },
		"pivot":   func() error { return unix.PivotRoot("/nowhere", "/nowhere") },
		"setns":   func() error { return unix.Setns(-1, 0) },
		"chroot":  func() error { return unix.Chroot("/") },
	}
	for _, name := range names {
		call, ok := calls[name]
		if !ok {
			return fmt.Errorf("no call %q", name)
		}
		answer := "yes"
		if err := call(); err != nil {
			answer = err.Error()
		}
		fmt.Printf("%s: %s\n", name, answer)
	}
	return nil
}
