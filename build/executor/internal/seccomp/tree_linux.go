package seccomp

import (
	"fmt"
	"math"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict is what happens to one syscall: rules in their order, then what holds if none of them matches.
type verdict struct {
	rules []argRule
	ret   uint32
}

// argRule is an action that needs all of its conditions.
type argRule struct {
	args []specs.LinuxSeccompArg
	ret  uint32
}

// segment is a range of syscall numbers, up to the next segment's start, with one verdict.
type segment struct {
	start uint32
	v     verdict
}

// identityCalls are answered with success where only id 0 exists, under all names that they have in our ABIs.
func identityCalls() []string {
	return []string{
		"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
		"setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32", "setfsuid32", "setfsgid32", "setgroups32",
	}
}

// abiTree compiles the verdicts of one ABI to a tree of comparisons on the syscall number, which is already loaded.
func abiTree(s *specs.LinuxSeccomp, info *arch.Info, fakeIDs bool) ([]bpf.Instruction, error) {
	verdicts, err := abiVerdicts(s, info)
	if err != nil {
		return nil, err
	}
	if fakeIDs {
		numbers := syscallNumbers(info)
		for _, name := range identityCalls() {
			for _, nr := range numbers[name] {
				verdicts[nr] = verdict{ret: unix.SECCOMP_RET_ERRNO}
			}
		}
	}
	def, err := seccompAction(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	return compileTree(segments(verdicts, uint32(info.SeccompMask), def)), nil
}

// syscallNumbers are the numbers of each name, as the kernel reports them. x32 has two for some names, its own and
// that of x86_64, of which the table's map by name would give one at random.
func syscallNumbers(info *arch.Info) map[string][]int {
	out := make(map[string][]int, len(info.SyscallNumbers))
	for nr, name := range info.SyscallNumbers {
		out[name] = append(out[name], nr|info.SeccompMask)
	}
	return out
}

// abiVerdicts collects the rules of each syscall number. A rule without conditions outweighs all that have some, and
// conditions on the same argument are alternatives: so libseccomp and runc read a profile.
func abiVerdicts(s *specs.LinuxSeccomp, info *arch.Info) (map[int]verdict, error) {
	def, err := seccompAction(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	out, settled, numbers := map[int]verdict{}, map[int]bool{}, syscallNumbers(info)
	for _, call := range s.Syscalls {
		ret, err := seccompAction(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, a := range call.Args {
			if !knownOperator(a.Op) || a.Index > 5 {
				return nil, fmt.Errorf("condition %s on argument %d is not supported", a.Op, a.Index)
			}
		}
		for _, nr := range numbersOf(call.Names, numbers) {
			switch {
			case settled[nr]:
			case len(call.Args) == 0:
				out[nr], settled[nr] = verdict{ret: ret}, true
			default:
				v := out[nr]
				v.ret = def
				for _, args := range alternatives(call.Args) {
					v.rules = append(v.rules, argRule{args: args, ret: ret})
				}
				out[nr] = v
			}
		}
	}
	return out, nil
}

func numbersOf(names []string, numbers map[string][]int) (out []int) {
	for _, name := range names {
		out = append(out, numbers[name]...)
	}
	return out
}

// alternatives splits conditions that name one argument twice: they can't be meant to hold together.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			out := make([][]specs.LinuxSeccompArg, 0, len(args))
			for _, one := range args {
				out = append(out, []specs.LinuxSeccompArg{one})
			}
			return out
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// segments covers all numbers from 0 up: neighbours with the same plain verdict become one.
func segments(verdicts map[int]verdict, mask, def uint32) []segment {
	numbers := make([]int, 0, len(verdicts))
	newest := uint32(0)
	for nr := range verdicts {
		numbers = append(numbers, nr)
		if uint32(nr)&^mask < armPrivate {
			newest = max(newest, uint32(nr))
		}
	}
	slices.Sort(numbers)
	unnamed := func(nr uint32) verdict {
		if nr > newest && def != unix.SECCOMP_RET_ALLOW {
			return verdict{ret: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
		}
		return verdict{ret: def}
	}
	out := []segment{{start: 0, v: unnamed(0)}}
	add := func(start uint32, v verdict) {
		last := &out[len(out)-1]
		switch {
		case last.start == start:
			last.v = v
		case len(last.v.rules) == 0 && len(v.rules) == 0 && last.v.ret == v.ret:
		default:
			out = append(out, segment{start, v})
		}
	}
	for i, nr := range numbers {
		n := uint32(nr)
		add(n, verdicts[nr])
		if i+1 == len(numbers) || uint32(numbers[i+1]) != n+1 {
			add(n+1, unnamed(n+1))
		}
	}
	return out
}

// compileTree makes a binary search of the segments; every path through it ends in a return.
func compileTree(s []segment) []bpf.Instruction {
	if len(s) == 1 {
		return compileVerdict(s[0].v)
	}
	mid := len(s) / 2
	low, high := compileTree(s[:mid]), compileTree(s[mid:])
	node := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: s[mid].start, SkipTrue: uint8(min(len(low), math.MaxUint8))}}
	if len(low) > math.MaxUint8 { // a conditional jump reaches no further
		node = []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: s[mid].start, SkipFalse: 1}, bpf.Jump{Skip: uint32(len(low))}}
	}
	return append(append(node, low...), high...)
}

func compileVerdict(v verdict) []bpf.Instruction {
	var out []bpf.Instruction
	for _, r := range v.rules {
		out = append(out, compileRule(r)...)
	}
	return append(out, bpf.RetConstant{Val: v.ret})
}

// seccompAction translates an action to the kernel's return value. An ERRNO without a number means EPERM.
func seccompAction(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		data = uint32(*errno) & unix.SECCOMP_RET_DATA
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("action %q is not supported", a)
}
