package userns

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch" // for its tables of syscall numbers
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// FakeOwnership makes every chown of this process, on all its threads, and of the processes that it starts, succeed
// without doing anything. It is for where the kernel refuses any owner but our own: in Single, and for an ordinary
// user, who then can't gain privileges any more by running other programs. It can't be undone.
func FakeOwnership() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("fake ownership: %w", err)
	}
	const offNr, offArch = 0, 4 // in struct seccomp_data
	prog := []bpf.Instruction{
		// A process of another ABI has other numbers.
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.LoadAbsolute{Off: offNr, Size: 4},
	}
	for _, name := range []string{"chown", "fchown", "lchown", "fchownat"} {
		if nr, ok := info.SyscallNames[name]; ok {
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipFalse: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO})
		}
	}
	raw, err := bpf.Assemble(append(prog, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return fmt.Errorf("fake ownership: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fp := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // what prctl says of it, TSYNC says of all the others
	defer runtime.UnlockOSThread()
	if !mayAdminister() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("fake ownership: %w", err)
		}
	}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fp)))
	if errno != 0 {
		return fmt.Errorf("fake ownership: load seccomp filter: %w", errno)
	}
	if tid != 0 { // with TSYNC the kernel names the thread that has another filter already
		return fmt.Errorf("fake ownership: thread %d has a seccomp filter of its own", tid)
	}
	return nil
}
