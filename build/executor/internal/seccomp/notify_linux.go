package seccomp

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Notice is a call that a filter has sent to user space: the kernel's struct seccomp_notif. Nothing that it leads to is
// to be trusted: the process's number may be stale, and its memory may change.
type Notice struct {
	ID         uint64
	PID, Flags uint32
	Nr         int32
	Arch       uint32
	IP         uint64
	Args       [6]uint64
}

// Reply is what becomes of a call: the kernel's struct seccomp_notif_resp.
type Reply struct {
	ID    uint64
	Val   int64
	Err   int32
	Flags uint32
}

// TakeTurns has callers and who answers them take turns on one processor (Linux 6.6). Without it answers are only
// slower.
func TakeTurns(listener int) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
}

// Receive waits for the next call. ENOENT says that its caller was killed meanwhile, or that nobody is left.
func Receive(listener int) (Notice, unix.Errno) {
	// The kernel's structure may have grown, and it has to come zeroed.
	var room struct {
		n Notice
		_ [256]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&room)))
	return room.n, errno
}

// Send answers a call. That its caller is gone by now is nothing to report.
func Send(listener int, r Reply) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
}

// Waits says whether a call still waits: if so, the process that made it has not ended, and its number is its own.
func Waits(listener int, id uint64) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// Text reads a path at an address of a caller's memory by load, which returns how much it has read. The error is EFAULT
// for memory that is not there, and ENAMETOOLONG for a path without an end.
func Text(addr uint64, load func(addr uint64, buf []byte) int) (string, error) {
	var buf [unix.PathMax]byte
	for have := 0; have < len(buf); {
		// Never across the end of a page: the next one may not be there.
		want := min(256, 4096-int((addr+uint64(have))&4095), len(buf)-have)
		n := load(addr+uint64(have), buf[have:have+want])
		if n <= 0 {
			return "", unix.EFAULT
		}
		if end := bytes.IndexByte(buf[have:have+n], 0); end >= 0 {
			return string(buf[:have+end]), nil
		}
		have += n
	}
	return "", unix.ENAMETOOLONG
}
