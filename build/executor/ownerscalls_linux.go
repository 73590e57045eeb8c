package executor

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
)

// keep is the id that leaves a file's own.
const keep = ^uint32(0)

// ownersCall says where a call about owners has its arguments: the folder's or the file's own descriptor and the path
// (-1: it has none), the flags (-1), and the first of what comes after the path.
type ownersCall struct {
	fd, path, more, flags int
	nofollow              bool // links at the path's end are never followed
	statx                 bool
	short                 bool // ids have 16 bits
	answer                func(*ownersCaller, ownersCall) error
}

// id is an argument as an id.
func (c ownersCall) id(arg uint64) uint32 {
	if !c.short {
		return uint32(arg)
	}
	if uint16(arg) == ^uint16(0) {
		return keep
	}
	return uint32(uint16(arg))
}

// chownCalls are those that give files away, under all names that they have in our ABIs.
func chownCalls() map[string]ownersCall {
	set := (*ownersCaller).chown
	calls := map[string]ownersCall{
		"chown":    {fd: -1, path: 0, more: 1, flags: -1, answer: set},
		"lchown":   {fd: -1, path: 0, more: 1, flags: -1, nofollow: true, answer: set},
		"fchown":   {fd: 0, path: -1, more: 1, flags: -1, answer: set},
		"fchownat": {fd: 0, path: 1, more: 2, flags: 4, answer: set},
	}
	for _, name := range []string{"chown", "lchown", "fchown"} {
		calls[name+"32"] = calls[name]
	}
	return calls
}

// statCalls are those that tell whose files are. Their structures are those of this program's own ABI.
func statCalls() map[string]ownersCall {
	get := (*ownersCaller).stat
	return map[string]ownersCall{
		"stat":       {fd: -1, path: 0, more: 1, flags: -1, answer: get},
		"lstat":      {fd: -1, path: 0, more: 1, flags: -1, nofollow: true, answer: get},
		"fstat":      {fd: 0, path: -1, more: 1, flags: -1, answer: get},
		"newfstatat": {fd: 0, path: 1, more: 2, flags: 3, answer: get},
		"statx":      {fd: 0, path: 1, more: 4, flags: 2, statx: true, answer: get},
	}
}

// ownersCalls are the calls that the server answers, by their numbers.
func ownersCalls() map[seccomp.Call]ownersCall {
	const x32Bit = 0x40000000
	chown, stat, attributes := chownCalls(), statCalls(), attributeCalls()
	out := map[seccomp.Call]ownersCall{}
	for number, name := range seccomp.Calls() {
		if c, ok := chown[name]; ok {
			_, wide := chown[name+"32"]
			c.short = wide && number.Arch != seccomp.NativeArch() // there the other name has the ids of today
			out[number] = c
		}
		if c, ok := attributes[name]; ok {
			out[number] = c
		}
		if c, ok := stat[name]; ok && number.Arch == seccomp.NativeArch() && number.Nr < x32Bit {
			out[number] = c
		}
	}
	return out
}

// ownersFilters are the filter that sends a step's calls about owners to the server, and the one that answers with
// success those that would change something.
func ownersFilters() (send, succeed []unix.SockFilter, err error) {
	chown := slices.Collect(maps.Keys(chownCalls()))
	others := slices.AppendSeq(slices.Collect(maps.Keys(statCalls())), maps.Keys(attributeCalls()))
	profile := func(rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArches(), Syscalls: rules}
	}
	nothing := uint(0)
	send, err = seccomp.Compile(profile(
		specs.LinuxSyscall{Names: chown, Action: specs.ActNotify}, specs.LinuxSyscall{Names: others, Action: specs.ActNotify}), false)
	if err != nil {
		return nil, nil, err
	}
	succeed, err = seccomp.Compile(profile(specs.LinuxSyscall{Names: chown, Action: specs.ActErrno, ErrnoRet: &nothing}), false)
	return send, succeed, err
}

// planOwners has a step's calls about owners be answered.
func (e *stepExecutor) planOwners(p *plan) (err error) {
	if !e.opts.SingleID {
		return nil
	}
	if p.Owners, p.NoOwners, err = ownersFilters(); e.opts.Owners == nil {
		p.Owners = nil
	}
	return err
}
