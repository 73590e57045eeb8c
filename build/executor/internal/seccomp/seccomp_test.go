//go:build linux

package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is one system call as a filter sees it.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// judge runs a filter. The virtual machine reads big-endian words, the kernel native ones: so each word is stored so.
func judge(t *testing.T, vm *bpf.VM, c call) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[dataNr:], c.nr)
	binary.BigEndian.PutUint32(data[dataArch:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(data[dataArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[dataArgs+8*i+4:], uint32(a>>32))
	}
	ret, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(ret)
}

func newVM(t *testing.T, s *specs.LinuxSeccomp, fake bool) *bpf.VM {
	t.Helper()
	prog, err := Compile(s, fake)
	if err != nil {
		t.Fatal(err)
	}
	if len(prog) > unix.BPF_MAXINSNS {
		t.Fatalf("%d instructions", len(prog))
	}
	insns := make([]bpf.Instruction, len(prog))
	for i, f := range prog {
		insns[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}.Disassemble()
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// oracle reads a profile the slow way, for one ABI.
type oracle struct {
	s      *specs.LinuxSeccomp
	info   *arch.Info
	named  map[string]bool
	newest int // of the numbers that the profile names
}

func newOracle(s *specs.LinuxSeccomp, info *arch.Info) *oracle {
	o := &oracle{s: s, info: info, named: map[string]bool{}}
	for _, rule := range s.Syscalls {
		for _, n := range rule.Names {
			o.named[n] = true
		}
	}
	for nr, n := range info.SyscallNumbers {
		if o.named[n] && nr < armPrivate {
			o.newest = max(o.newest, nr)
		}
	}
	return o
}

func (o *oracle) expect(t *testing.T, c call) uint32 {
	t.Helper()
	ret := func(a specs.LinuxSeccompAction, errno *uint) uint32 {
		r, err := seccompAction(a, errno)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	nr := int(c.nr) &^ o.info.SeccompMask
	name, conditional := o.info.SyscallNumbers[nr], uint32(0)
	if !o.named[name] {
		if nr > o.newest {
			return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		}
		return ret(o.s.DefaultAction, o.s.DefaultErrnoRet)
	}
	for _, rule := range o.s.Syscalls {
		switch {
		case !slices.Contains(rule.Names, name):
		case len(rule.Args) == 0:
			return ret(rule.Action, rule.ErrnoRet)
		case conditional == 0 && holds(rule.Args, c):
			conditional = ret(rule.Action, rule.ErrnoRet)
		}
	}
	if conditional != 0 {
		return conditional
	}
	return ret(o.s.DefaultAction, o.s.DefaultErrnoRet)
}

func holds(args []specs.LinuxSeccompArg, c call) bool {
	one := func(a specs.LinuxSeccompArg) bool {
		v := c.args[a.Index]
		switch a.Op {
		case specs.OpEqualTo:
			return v == a.Value
		case specs.OpNotEqual:
			return v != a.Value
		case specs.OpMaskedEqual:
			return v&a.Value == a.ValueTwo
		case specs.OpGreaterThan:
			return v > a.Value
		case specs.OpGreaterEqual:
			return v >= a.Value
		case specs.OpLessThan:
			return v < a.Value
		default:
			return v <= a.Value
		}
	}
	indexes := map[uint]bool{}
	for _, a := range args {
		indexes[a.Index] = true
	}
	if len(indexes) < len(args) {
		return slices.ContainsFunc(args, one)
	}
	return !slices.ContainsFunc(args, func(a specs.LinuxSeccompArg) bool { return !one(a) })
}

// interesting are argument values at and around all that a profile compares with.
func interesting(s *specs.LinuxSeccomp) []uint64 {
	vals := []uint64{0, 1, 1 << 32, 1<<32 + 1, 1<<64 - 1}
	for _, r := range s.Syscalls {
		for _, a := range r.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				vals = append(vals, v, v-1, v+1, v|1<<32, v|1<<63, v&-v)
			}
		}
	}
	slices.Sort(vals)
	return slices.Compact(vals)
}

// profileFor is the default profile for a platform: the rules that name an architecture or not are those of the
// machine that runs the test, which the comparison does not mind.
func profileFor(t *testing.T, arches ...specs.Arch) *specs.LinuxSeccomp {
	t.Helper()
	s, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Architectures = arches
	return s
}

// operators is a profile with every operator, on values of more than 32 bits, several arguments and alternatives.
func operators(t *testing.T, arches ...specs.Arch) *specs.LinuxSeccomp {
	t.Helper()
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: arches}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpMaskedEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual}
	names := []string{"read", "write", "open", "close", "dup", "pipe", "chdir"}
	for i, op := range ops {
		for j, v := range []uint64{7, 1<<40 | 7} {
			errno := uint(100 + j)
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{
				Names: []string{names[i]}, Action: specs.ActErrno, ErrnoRet: &errno,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: v, ValueTwo: v & 5, Op: op}},
			})
		}
	}
	s.Syscalls = append(s.Syscalls,
		specs.LinuxSyscall{Names: []string{"mkdir", "openat"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 7, Op: specs.OpLessThan}, {Index: 5, Value: 1 << 40, Op: specs.OpGreaterEqual}}},
		specs.LinuxSyscall{Names: []string{"rmdir", "mmap"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Index: 2, Value: 7, Op: specs.OpEqualTo}, {Index: 2, Value: 1 << 40, Op: specs.OpEqualTo}}},
		specs.LinuxSyscall{Names: []string{"getpid"}, Action: specs.ActKillProcess},
	)
	return s
}

// TestSeccomp compares what compiled filters answer with the profile, for every number of every ABI.
func TestSeccomp(t *testing.T) {
	infos := map[specs.Arch]*arch.Info{
		specs.ArchX86_64: arch.X86_64, specs.ArchX86: arch.I386, specs.ArchX32: arch.X32, specs.ArchAARCH64: arch.AARCH64, specs.ArchARM: arch.ARM,
	}
	for _, abis := range [][]specs.Arch{{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, {specs.ArchAARCH64, specs.ArchARM}, {specs.ArchX32, specs.ArchX86_64}} {
		for name, s := range map[string]*specs.LinuxSeccomp{"default": profileFor(t, abis...), "operators": operators(t, abis...)} {
			t.Run(fmt.Sprintf("%s %v", name, abis), func(t *testing.T) {
				vm, values, judged := newVM(t, s, false), interesting(s), 0
				for _, abi := range abis {
					info := infos[abi]
					o := newOracle(s, info)
					for _, nr := range append(numbers(700), armPrivate, armPrivate+1, armPrivate+2, armPrivate+5, armPrivate+6) {
						for _, v := range values {
							c := call{arch: uint32(info.ID), nr: nr | uint32(info.SeccompMask), args: [6]uint64{v, v, v, v, v, v}}
							if got, want := judge(t, vm, c), o.expect(t, c); got != want {
								t.Fatalf("%s %d (%s) with %#x: %#x, want %#x", info.Name, nr, info.SyscallNumbers[int(nr)], v, got, want)
							}
							judged++
						}
					}
				}
				if judged < 1000 {
					t.Errorf("only %d calls were judged", judged)
				}
			})
		}
	}
}

func numbers(n int) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = uint32(i)
	}
	return out
}

// TestSeccompVerdicts names what must hold whatever the compiler and the comparison above agree on.
func TestSeccompVerdicts(t *testing.T) {
	vm := newVM(t, profileFor(t, specs.ArchX86_64, specs.ArchX86, specs.ArchX32), false)
	fake := newVM(t, profileFor(t, specs.ArchX86_64, specs.ArchX86, specs.ArchX32), true)
	eperm, enosys := unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)
	amd64, i386 := uint32(arch.X86_64.ID), uint32(arch.I386.ID)
	for _, tt := range []struct {
		name string
		vm   *bpf.VM
		c    call
		want uint32
	}{
		{"read", vm, call{arch: amd64, nr: 0}, unix.SECCOMP_RET_ALLOW},
		{"mount", vm, call{arch: amd64, nr: 165}, eperm},
		{"mount, i386", vm, call{arch: i386, nr: 21}, eperm},
		{"clone3", vm, call{arch: amd64, nr: 435}, enosys},
		{"clone of a thread", vm, call{arch: amd64, nr: 56, args: [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}}, unix.SECCOMP_RET_ALLOW},
		{"clone of a user namespace", vm, call{arch: amd64, nr: 56, args: [6]uint64{unix.CLONE_NEWUSER}}, eperm},
		{"unshare", vm, call{arch: amd64, nr: 272}, eperm},
		{"socket of vsock", vm, call{arch: amd64, nr: 41, args: [6]uint64{unix.AF_VSOCK}}, eperm},
		{"socket of inet", vm, call{arch: amd64, nr: 41, args: [6]uint64{unix.AF_INET}}, unix.SECCOMP_RET_ALLOW},
		{"newer than all", vm, call{arch: amd64, nr: 9999}, enosys},
		{"x32 read", vm, call{arch: amd64, nr: x32Bit}, unix.SECCOMP_RET_ALLOW},
		{"x32 mount", vm, call{arch: amd64, nr: x32Bit | 165}, eperm},
		{"no number", vm, call{arch: amd64, nr: 1<<32 - 1}, enosys},
		{"another architecture", vm, call{arch: uint32(arch.AARCH64.ID), nr: 0}, unix.SECCOMP_RET_KILL_PROCESS},
		{"x32 not listed", newVM(t, profileFor(t, specs.ArchX86_64), false), call{arch: amd64, nr: x32Bit}, unix.SECCOMP_RET_KILL_PROCESS},
		{"chown", vm, call{arch: amd64, nr: 92}, unix.SECCOMP_RET_ALLOW},
		{"chown, which is not answered here", fake, call{arch: amd64, nr: 92}, unix.SECCOMP_RET_ALLOW},
		{"setuid answered", fake, call{arch: amd64, nr: 105}, unix.SECCOMP_RET_ERRNO},
		{"setuid32 answered", fake, call{arch: i386, nr: 213}, unix.SECCOMP_RET_ERRNO},
		{"setgroups answered", fake, call{arch: amd64, nr: 116}, unix.SECCOMP_RET_ERRNO},
		{"without a profile", newVM(t, nil, true), call{arch: amd64, nr: 165}, unix.SECCOMP_RET_ALLOW},
		{"without a profile, setuid", newVM(t, nil, true), call{arch: amd64, nr: 105}, unix.SECCOMP_RET_ERRNO},
	} {
		if got := judge(t, tt.vm, tt.c); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	for name, s := range map[string]*specs.LinuxSeccomp{
		"architecture": {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchMIPS}},
		"action":       {DefaultAction: "SCMP_ACT_NOTHING"},
		"operator":     {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "?"}}}}},
	} {
		if _, err := Compile(s, false); err == nil {
			t.Errorf("an unknown %s is accepted", name)
		}
	}
}

func BenchmarkCompileSeccomp(b *testing.B) {
	s, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		prog, err := Compile(s, false)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(prog)), "instructions")
	}
}
