package seccomp

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch" // for its tables of syscall numbers
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where the words of struct seccomp_data lie (little endian, which all our architectures are).
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// x32Bit marks a syscall number of the x32 ABI; its AUDIT_ARCH is that of x86_64.
const x32Bit = 0x40000000

// armPrivate is where ARM's private syscalls (set_tls, cacheflush) begin, far above all others.
const armPrivate = 0xf0000

// Compile translates an OCI seccomp profile to a BPF program, as libseccomp would: a tree of comparisons for
// each ABI. Two things follow runc rather than the profile: a syscall newer than all that the profile names gets
// ENOSYS, so that libraries fall back instead of giving up, and an ABI that is not listed kills the process.
// With fakeIDs, set*id are answered with success instead. A nil profile without fakeIDs gives nil.
func Compile(s *specs.LinuxSeccomp, fakeIDs bool) ([]unix.SockFilter, error) {
	if s == nil {
		if !fakeIDs {
			return nil, nil
		}
		s = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: NativeArches()}
	}
	prog, err := seccompProgram(s, fakeIDs)
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, err
	}
	if len(raw) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions are more than the kernel takes", len(raw))
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

// NativeArches are the ABIs of this machine's kernel.
func NativeArches() []specs.Arch {
	if runtime.GOARCH == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}

// seccompProgram puts the ABIs' trees one after the other, each behind a test of the architecture.
func seccompProgram(s *specs.LinuxSeccomp, fakeIDs bool) ([]bpf.Instruction, error) {
	abis, err := seccompABIs(s.Architectures)
	if err != nil {
		return nil, err
	}
	prog := []bpf.Instruction{bpf.LoadAbsolute{Off: dataArch, Size: 4}}
	for _, a := range abis {
		var body []bpf.Instruction
		for _, info := range a {
			tree, err := abiTree(s, info, fakeIDs)
			if err != nil {
				return nil, err
			}
			if info == arch.X86_64 { // what has the bit is x32's, or nobody's: skip to after this tree
				body = append(body, bpf.LoadAbsolute{Off: dataNr, Size: 4},
					bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1}, bpf.Jump{Skip: uint32(len(tree))})
			} else {
				body = append(body, bpf.LoadAbsolute{Off: dataNr, Size: 4})
			}
			body = append(body, tree...)
		}
		body = append(body, bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a[0].ID), SkipTrue: 1}, bpf.Jump{Skip: uint32(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}), nil
}

// seccompABIs groups the profile's architectures by what the kernel reports for them: x32 comes with x86_64.
func seccompABIs(list []specs.Arch) ([][]*arch.Info, error) {
	known := map[specs.Arch]*arch.Info{
		specs.ArchX86_64: arch.X86_64, specs.ArchX86: arch.I386, specs.ArchX32: arch.X32,
		specs.ArchAARCH64: arch.AARCH64, specs.ArchARM: arch.ARM,
	}
	if len(list) == 0 {
		list = NativeArches()[:1]
	}
	var out [][]*arch.Info
	for _, a := range list {
		info, ok := known[a]
		if !ok {
			return nil, fmt.Errorf("architecture %q is not supported", a)
		}
		i := slices.IndexFunc(out, func(g []*arch.Info) bool { return g[0].ID == info.ID })
		switch {
		case i < 0:
			out = append(out, []*arch.Info{info})
		case info == arch.X32:
			out[i] = append(out[i], info)
		default: // x86_64 goes first: the others' numbers are behind its test of the bit
			out[i] = append([]*arch.Info{info}, out[i]...)
		}
	}
	return out, nil
}

// Load installs a filter. Without flags it holds for this thread and what it starts or becomes.
func Load(prog []unix.SockFilter, flags uintptr) error {
	if len(prog) == 0 {
		return nil
	}
	_, err := load(prog, flags)
	return err
}

// Listen installs a filter for this thread and what it starts or becomes, and returns a descriptor from which the
// calls come that the filter's verdict sends to user space.
func Listen(prog []unix.SockFilter) (int, error) {
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	// A caller whose call is being answered is not to be disturbed by signals, or a program that gets many of them (Go
	// sends them to itself) makes the call again and again. Linux 5.19 has that.
	fd, err := load(prog, flags|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errors.Is(err, unix.EINVAL) {
		fd, err = load(prog, flags)
	}
	return fd, err
}

func load(prog []unix.SockFilter, flags uintptr) (int, error) {
	if len(prog) == 0 || len(prog) > math.MaxUint16 {
		return -1, fmt.Errorf("seccomp filter has %d instructions", len(prog))
	}
	fp := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fp)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// Call is a system call's number in one of this machine's ABIs: Arch is the kernel's AUDIT_ARCH, of which x32 has
// x86_64's and a bit in the number.
type Call struct {
	Arch uint32
	Nr   int32
}

// Calls returns the names of all system calls in all of this machine's ABIs.
func Calls() map[Call]string {
	out := map[Call]string{}
	for _, group := range nativeInfos() {
		for _, info := range group {
			for nr, name := range info.SyscallNumbers {
				out[Call{uint32(info.ID), int32(nr | info.SeccompMask)}] = name
			}
		}
	}
	return out
}

// NativeArch is the AUDIT_ARCH of this program's own ABI.
func NativeArch() uint32 { return uint32(nativeInfos()[0][0].ID) }

func nativeInfos() [][]*arch.Info {
	infos, err := seccompABIs(NativeArches())
	if err != nil {
		panic(err) // a list of our own
	}
	return infos
}
