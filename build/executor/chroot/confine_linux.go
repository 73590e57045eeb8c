package chroot

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
)

// stepCapabilities is all that a step may have: docker's defaults without CAP_SYS_CHROOT, with which it could leave its
// root, CAP_MKNOD, with which it could make a disk's node, and CAP_NET_RAW, with which it could listen to others.
// That is less than its supervisor and the engine have, so it can't trace those.
func stepCapabilities() uint64 {
	var set uint64
	for _, c := range []uint{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_SETGID, unix.CAP_SETUID,
		unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
	} {
		set |= 1 << c
	}
	return set
}

// supervisorCapabilities is what a supervisor keeps once it is in the step's root: more than the step, so that the step
// can't trace it, and less than the engine, so that it can't trace that.
func supervisorCapabilities() uint64 {
	return stepCapabilities() | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW
}

// confinement is the profile of the filter that comes on top of docker's default one. It forbids what could reach out
// of the step and is not a matter of capabilities, and it sends calls to the supervisor: those with a path, for /proc,
// and those at a process by its number, unless that is 0, the caller itself. With scoped Landlock keeps signals and
// traces within.
func confinement(scoped, noNetwork bool) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArches()}
	deny := func(errno unix.Errno, names []string, args ...specs.LinuxSeccompArg) {
		ret := uint(errno)
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: &ret, Args: args})
	}
	notify := func(names []string, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: names, Action: specs.ActNotify, Args: args})
	}
	deny(unix.EPERM, forbiddenCalls())
	deny(unix.EPERM, []string{"ioctl"}, equal(1, unix.TIOCSTI))
	deny(unix.EPERM, []string{"ioctl"}, equal(1, unix.TIOCLINUX))
	// setpriority(2) and ioprio_set(2) at a group (the caller's own excepted) or at a user.
	deny(unix.EPERM, []string{"setpriority"}, equal(0, unix.PRIO_USER))
	deny(unix.EPERM, []string{"setpriority"}, equal(0, unix.PRIO_PGRP), unequal(1, 0))
	deny(unix.EPERM, []string{"ioprio_set"}, equal(0, ioprioUser))
	deny(unix.EPERM, []string{"ioprio_set"}, equal(0, ioprioGroup), unequal(1, 0))
	if noNetwork {
		deny(unix.ENETUNREACH, []string{"socket"}, unequal(0, unix.AF_UNIX))
		deny(unix.ENETUNREACH, []string{"socketcall"}) // i386: its arguments lie in memory; libraries do without it
	}
	if !scoped {
		deny(unix.EPERM, []string{"fcntl", "fcntl64"}, equal(1, unix.F_SETOWN_EX))
		deny(unix.EPERM, []string{"ioctl"}, equal(1, fioSetOwn))
		deny(unix.EPERM, []string{"ioctl"}, equal(1, siocSetGroup))
	}
	for name, c := range processCalls(scoped) {
		args := []specs.LinuxSeccompArg{unequal(c.arg, 0)}
		if c.when != nil {
			args = append(args, *c.when)
		}
		notify([]string{name}, args...)
	}
	for name, c := range pathCalls() {
		if c.flags >= 0 && c.empty {
			// Without a path, at a descriptor, as fstat is made of.
			notify([]string{name}, specs.LinuxSeccompArg{Index: uint(c.flags), Op: specs.OpMaskedEqual, Value: unix.AT_EMPTY_PATH, ValueTwo: 0})
			continue
		}
		notify([]string{name})
	}
	return p
}

// Values that package unix does not have.
const (
	ioprioGroup  = 2
	ioprioUser   = 3
	fioSetOwn    = 0x8901
	siocSetGroup = 0x8902
)

func equal(arg uint, value uint64) specs.LinuxSeccompArg {
	// The kernel looks at 32 bits of these arguments, so whatever is above them must not matter.
	return specs.LinuxSeccompArg{Index: arg, Op: specs.OpMaskedEqual, Value: 0xffffffff, ValueTwo: value}
}

func unequal(arg uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: arg, Op: specs.OpNotEqual, Value: value}
}

// forbiddenCalls are refused whatever their arguments. Most of them docker's profile refuses as well; a step must not
// depend on which one is in force outside.
func forbiddenCalls() []string {
	return []string{
		"chroot", "pivot_root", "mount", "umount", "umount2", "mount_setattr", "move_mount", "open_tree", "open_tree_attr",
		"fsopen", "fsconfig", "fsmount", "fspick", "setns", "unshare",
		"add_key", "keyctl", "request_key", "bpf", "perf_event_open", "userfaultfd", "kcmp", "lookup_dcookie",
		"io_uring_setup", "io_uring_enter", "io_uring_register", // its requests pass by every filter
		"open_by_handle_at", "fanotify_init",
		"pidfd_getfd", "process_madvise", "process_mrelease", "migrate_pages", "move_pages",
		"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module",
		"acct", "swapon", "swapoff", "reboot", "quotactl", "quotactl_fd", "syslog", "iopl", "ioperm", "vhangup",
	}
}

// processCall is a call at a process, whose number is the argument arg.
type processCall struct {
	arg  uint
	when *specs.LinuxSeccompArg // only with this argument
}

// processCalls are let through only at the step's own processes.
func processCalls(scoped bool) map[string]processCall {
	when := func(a specs.LinuxSeccompArg) *specs.LinuxSeccompArg { return &a }
	calls := map[string]processCall{
		"prlimit64": {}, "sched_setaffinity": {}, "sched_setscheduler": {}, "sched_setparam": {}, "sched_setattr": {},
		"setpriority": {arg: 1, when: when(equal(0, unix.PRIO_PROCESS))},
		"ioprio_set":  {arg: 1},
	}
	if scoped {
		return calls
	}
	for _, name := range []string{"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "process_vm_readv", "process_vm_writev"} {
		calls[name] = processCall{}
	}
	calls["ptrace"] = processCall{arg: 1}
	calls["fcntl"] = processCall{arg: 2, when: when(equal(1, unix.F_SETOWN))}
	calls["fcntl64"] = calls["fcntl"]
	return calls
}
