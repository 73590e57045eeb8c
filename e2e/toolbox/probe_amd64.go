package main

import "golang.org/x/sys/unix"

// waitingCalls are those that newer architectures do without.
func waitingCalls() []int {
	return []int{unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_PAUSE, unix.SYS_POLL, unix.SYS_SELECT}
}
