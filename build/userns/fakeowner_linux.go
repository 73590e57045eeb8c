package userns

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch" // for its tables of syscall numbers
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// FakeOwnership makes every chown of this process, on all its threads, and of the processes that it starts, succeed
// without doing anything. It is for where the kernel refuses any owner but our own: in Single, and for an ordinary
// user, who then can't gain privileges any more by running other programs. It can't be undone.
func FakeOwnership() error {
	return answerZero("fake ownership", answer{call: "chown"}, answer{call: "fchown"}, answer{call: "lchown"}, answer{call: "fchownat"})
}

// FakeOwnOwnership is FakeOwnership for this program's own code: what other programs ask for, which it starts, is left
// to the kernel, or to a filter of their own.
func FakeOwnOwnership() error {
	at, err := syscallAddress()
	if err != nil {
		return fmt.Errorf("fake ownership: %w", err)
	}
	return answerZero("fake ownership", answer{call: "chown", from: at}, answer{call: "fchown", from: at},
		answer{call: "lchown", from: at}, answer{call: "fchownat", from: at})
}

// syscallAddress is where this program makes its system calls: Go does it in one place for all of them. The kernel says
// so of the call that asks.
func syscallAddress() (uint64, error) {
	const name = "/proc/thread-self/syscall"
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(text))
	if len(words) != 9 { // the call's number, six arguments, the stack, and the address
		return 0, fmt.Errorf("%s says %q", name, text)
	}
	return strconv.ParseUint(words[8], 0, 64)
}

// answer is a system call that is answered with success instead of being done, if its first argument is this one; 0:
// whatever it is.
type answer struct {
	call     string
	argument uint32
	from     uint64 // only if it is made at this address; 0: wherever
}

// answerZero loads a filter for this process, all its threads, and what it starts. what it is for stands in errors.
func answerZero(what string, answers ...answer) error {
	filter, err := answering(answers)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	runtime.LockOSThread() // what prctl says of it, TSYNC says of all the others
	defer runtime.UnlockOSThread()
	if !mayAdminister() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	fp := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fp)))
	if errno != 0 {
		return fmt.Errorf("%s: load seccomp filter: %w", what, errno)
	}
	if tid != 0 { // with TSYNC the kernel names the thread that has another filter already
		return fmt.Errorf("%s: thread %d has a seccomp filter of its own", what, tid)
	}
	return nil
}

func answering(answers []answer) ([]unix.SockFilter, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	const offNr, offArch, offFrom, offArg = 0, 4, 8, 16 // in struct seccomp_data
	success := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO}
	prog := []bpf.Instruction{
		// A process of another ABI has other numbers.
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	}
	for _, a := range answers {
		nr, ok := info.SyscallNames[a.call]
		if !ok {
			continue
		}
		prog = append(prog, bpf.LoadAbsolute{Off: offNr, Size: 4})
		if a.from != 0 {
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipFalse: 5},
				bpf.LoadAbsolute{Off: offFrom, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.from), SkipFalse: 3},
				bpf.LoadAbsolute{Off: offFrom + 4, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.from >> 32), SkipFalse: 1}, success)
			continue
		}
		if a.argument == 0 {
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipFalse: 1}, success)
			continue
		}
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipFalse: 3},
			bpf.LoadAbsolute{Off: offArg, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.argument, SkipFalse: 1}, success)
	}
	raw, err := bpf.Assemble(append(prog, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}
