package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// noMounts is a program on the stories' PATH: it runs its arguments, and whoever of what they start tries to mount
// something or to enter a namespace is killed. Where that is only refused nobody would notice a try.
const noMounts = "no-mounts"

func runWithoutMounts(args []string) {
	var clones []seccomp.NameWithConditions
	for _, flag := range []uint64{
		unix.CLONE_NEWNS, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP,
	} {
		clones = append(clones, cloneWith(flag))
	}
	runFiltered(noMounts, args,
		seccomp.SyscallGroup{
			// A tree that is opened, but not moved to anywhere, is only a handle: that may be tried.
			Names:  []string{"mount", "umount2", "unshare", "pivot_root", "setns", "move_mount", "fsopen", "fsmount", "fspick"},
			Action: seccomp.ActionKillProcess,
		},
		seccomp.SyscallGroup{Action: seccomp.ActionKillProcess, NamesWithCondtions: clones},
	)
}

func cloneWith(flag uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: "clone", Conditions: []seccomp.Condition{{
		Argument: 0, Operation: seccomp.BitsSet, Value: flag,
	}}}
}

// runFiltered becomes the program of args, with groups of system calls that are answered by a filter. It ends as program
// if it can't. There is no clone3, whose flags no filter can see.
func runFiltered(program string, args []string, groups ...seccomp.SyscallGroup) {
	runtime.LockOSThread() // that no new privileges are had is said of this thread, and TSYNC tells the others
	noClone3 := seccomp.SyscallGroup{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)}
	err := seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: append(groups, noClone3)},
	})
	if err == nil {
		var path string
		if path, err = exec.LookPath(args[0]); err == nil {
			err = syscall.Exec(path, args, os.Environ())
		}
	}
	fmt.Fprintln(os.Stderr, program+":", err)
	os.Exit(126)
}
