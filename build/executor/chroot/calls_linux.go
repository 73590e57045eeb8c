package chroot

import (
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
)

// op is what a call does with a path.
type op int

const (
	opOpen op = iota
	opOpen2
	opCreate
	opStat
	opLstat
	opStatAt
	opStatx
	opAccess
	opReadlink
	opExec
	opStatfs
	opChdir
	opXattr
	opChmod
	opChown
)

// pathCall says where a call has its arguments: the folder's descriptor (-1: it has none), the path, and the first of
// what comes after the path. flags are those with AT_EMPTY_PATH or AT_SYMLINK_NOFOLLOW (-1: there are none).
type pathCall struct {
	op                       op
	dirfd, path, more, flags int
	empty                    bool // common with AT_EMPTY_PATH, which the filter lets through
	nofollow                 bool // links at the path's end are never followed
	native                   bool // has a structure, or ids, that differ from ABI to ABI
}

// pathCalls are the calls that the supervisor looks at, by name. A number that an ABI does not have is no harm.
func pathCalls() map[string]pathCall {
	return map[string]pathCall{
		"open":       {op: opOpen, dirfd: -1, path: 0, more: 1, flags: -1},
		"openat":     {op: opOpen, dirfd: 0, path: 1, more: 2, flags: -1},
		"openat2":    {op: opOpen2, dirfd: 0, path: 1, more: 2, flags: -1},
		"creat":      {op: opCreate, dirfd: -1, path: 0, more: 1, flags: -1},
		"stat":       {op: opStat, dirfd: -1, path: 0, more: 1, flags: -1, native: true},
		"lstat":      {op: opLstat, dirfd: -1, path: 0, more: 1, flags: -1, nofollow: true, native: true},
		"newfstatat": {op: opStatAt, dirfd: 0, path: 1, more: 2, flags: 3, empty: true, native: true},
		"statx":      {op: opStatx, dirfd: 0, path: 1, more: 3, flags: 2, empty: true},
		"access":     {op: opAccess, dirfd: -1, path: 0, more: 1, flags: -1},
		"faccessat":  {op: opAccess, dirfd: 0, path: 1, more: 2, flags: -1},
		"faccessat2": {op: opAccess, dirfd: 0, path: 1, more: 2, flags: 3},
		"readlink":   {op: opReadlink, dirfd: -1, path: 0, more: 1, flags: -1, nofollow: true},
		"readlinkat": {op: opReadlink, dirfd: 0, path: 1, more: 2, flags: -1, nofollow: true},
		"execve":     {op: opExec, dirfd: -1, path: 0, more: 1, flags: -1},
		"execveat":   {op: opExec, dirfd: 0, path: 1, more: 2, flags: 4, empty: true},
		"statfs":     {op: opStatfs, dirfd: -1, path: 0, more: 1, flags: -1, native: true},
		"chdir":      {op: opChdir, dirfd: -1, path: 0, more: 1, flags: -1},
		"getxattr":   {op: opXattr, dirfd: -1, path: 0, more: 1, flags: -1},
		"lgetxattr":  {op: opXattr, dirfd: -1, path: 0, more: 1, flags: -1, nofollow: true},
		"listxattr":  {op: opXattr, dirfd: -1, path: 0, more: 1, flags: -1},
		"llistxattr": {op: opXattr, dirfd: -1, path: 0, more: 1, flags: -1, nofollow: true},
		"chmod":      {op: opChmod, dirfd: -1, path: 0, more: 1, flags: -1},
		"fchmodat":   {op: opChmod, dirfd: 0, path: 1, more: 2, flags: -1},
		"fchmodat2":  {op: opChmod, dirfd: 0, path: 1, more: 2, flags: 3},
		"chown":      {op: opChown, dirfd: -1, path: 0, more: 1, flags: -1, native: true},
		"fchownat":   {op: opChown, dirfd: 0, path: 1, more: 2, flags: 4, native: true},
	}
}

// call is what is known of a number that the filter sends.
type call struct {
	path *pathCall // nil: it is at a process
	pid  uint      // the argument with the process's number
	kill bool      // that number may be negative, for a group
}

// knownCalls is all that the filter may send, by number. A call whose structures are another ABI's is left out: it is
// let through.
func knownCalls() map[seccomp.Call]call {
	out := map[seccomp.Call]call{}
	paths, processes := pathCalls(), processCalls(false)
	for number, name := range seccomp.Calls() {
		native := number.Arch == seccomp.NativeArch() && number.Nr < x32Bit
		if c, ok := paths[name]; ok && (native || !c.native) {
			out[number] = call{path: &c}
		}
		if c, ok := processes[name]; ok {
			out[number] = call{pid: c.arg, kill: name == "kill" || name == "fcntl" || name == "fcntl64"}
		}
	}
	return out
}

// x32Bit marks a number of the x32 ABI.
const x32Bit = 0x40000000

// addFile is the kernel's struct seccomp_notif_addfd.
type addFile struct {
	ID                            uint64
	Flags, SrcFD, NewFD, NewFlags uint32
}

// answer is what becomes of a call. The zero value lets the kernel go on with it.
type answer struct {
	done  bool
	val   int64
	errno unix.Errno
	file  int    // a descriptor for the caller, which is closed afterwards; 0: none
	flags uint32 // O_CLOEXEC or nothing
}

func failed(errno unix.Errno) answer { return answer{done: true, errno: errno} }
func returned(val int64) answer      { return answer{done: true, val: val} }
