package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probe prints all that a process can see of what holds it in, a fact a line, so that two
// runtimes can be compared. Its operand is a folder with the names of the host's
// namespaces. Called with a number it makes that system call, as one of its own children.
func probe(args []string) error {
	if len(args) == 2 && args[0] == "call" {
		return tryCall(args[1])
	}
	if len(args) != 1 {
		return errors.New("which folder?")
	}
	for _, facts := range []func() error{
		probeStatus, probeLimits, func() error { return probeIDs(args[0]) }, probeMounts, probeDevices, probeFiles, probeProtected, probeSettings, probeCalls,
	} {
		if err := facts(); err != nil {
			return err
		}
	}
	return nil
}

func fact(kind string, values ...any) {
	fmt.Println(append([]any{kind}, values...)...)
}

// probeStatus is what the kernel says of the process.
func probeStatus() error {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "Umask", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "THP_enabled":
			fact("status", key, strings.Join(strings.Fields(value), " "))
		}
	}
	for _, op := range []int{unix.PR_GET_SECUREBITS, unix.PR_GET_DUMPABLE, unix.PR_GET_KEEPCAPS, unix.PR_GET_TIMERSLACK} {
		value, err := unix.PrctlRetInt(op, 0, 0, 0, 0)
		fact("prctl", op, value, outcome(err))
	}
	for _, name := range []string{"oom_score_adj", "attr/current", "cgroup", "personality"} {
		text, err := os.ReadFile(filepath.Join("/proc/self", name))
		fact("process", name, strings.Join(strings.Fields(string(text)), " "), outcome(err))
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	fact("process", "priority", nice, outcome(err))
	session, err := unix.Getsid(0)
	fact("process", "its group and session are the first process's", unix.Getpgrp() == session && session == 1, outcome(err))
	return nil
}

func probeLimits() error {
	for n := range 16 {
		var limit unix.Rlimit
		if err := unix.Getrlimit(n, &limit); err != nil {
			return err
		}
		fact("limit", n, limit.Cur, limit.Max)
	}
	return nil
}

func probeIDs(host string) error {
	for _, name := range []string{"uid_map", "gid_map", "setgroups"} {
		text, err := os.ReadFile("/proc/self/" + name)
		fact("ids", name, strings.Join(strings.Fields(string(text)), " "), outcome(err))
	}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			return err
		}
		outer, err := os.ReadFile(filepath.Join(host, name))
		if err != nil {
			return err
		}
		whose := "own"
		if strings.TrimSpace(string(outer)) == link {
			whose = "the host's"
		}
		fact("namespace", name, whose)
	}
	for _, v := range os.Environ() {
		fact("environment", v)
	}
	name, err := os.Hostname()
	fact("host", name)
	return err
}

// probeMounts are the mounts in their order, without what differs from run to run.
func probeMounts() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		// ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [OPTIONAL...] - TYPE SOURCE SUPER
		before, after, _ := strings.Cut(line, " - ")
		at, of := strings.Fields(before), strings.Fields(after)
		if len(at) < 6 || len(of) < 3 {
			return fmt.Errorf("mount %q", line)
		}
		super := of[2]
		switch of[0] {
		case "overlay", "ext4", "xfs", "btrfs", "devtmpfs": // of this machine
			super = ""
		}
		fact("mount", at[4], at[5], strings.Join(at[6:], ","), of[0], super)
	}
	return nil
}

// probeDevices lists /dev.
func probeDevices() error {
	return filepath.WalkDir("/dev", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		target, _ := os.Readlink(path)
		if path == "/dev/pts/0" {
			return nil
		}
		fact("device", path, info.Mode(), st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev), target)
		return nil
	})
}

// probeFiles are the open files, and those that a runtime puts into the image.
func probeFiles() error {
	for fd := range 64 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if kind, _, ok := strings.Cut(target, ":"); ok {
			target = kind
		}
		if strings.HasPrefix(target, "anon_inode") && fd > 2 { // this program's own poller
			continue
		}
		fact("file", fd, target, kindOf(fs.FileMode(st.Mode)))
	}
	for _, name := range []string{"/etc/hosts", "/etc/resolv.conf", "/.dockerenv", "/run/.containerenv", "/proc", "/sys", "/dev", "/dev/shm", "/tmp"} {
		info, err := os.Stat(name)
		if err != nil {
			fact("file", name, outcome(err))
			continue
		}
		st := info.Sys().(*syscall.Stat_t)
		fact("file", name, info.Mode(), st.Uid, st.Gid, "write", outcome(unix.Access(name, unix.W_OK)))
	}
	return nil
}

// probeProtected tries what a runtime masks or makes read-only.
func probeProtected() error {
	for _, path := range []string{
		"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/interrupts", "/proc/irq", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats", "/proc/1/mem",
		"/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/security", "/sys/class/net", "/sys/fs/bpf", "/sys/devices/system/cpu/cpu0/thermal_throttle",
	} {
		fact("protected", path, "read", tryRead(path), "write", tryWrite(path))
	}
	return nil
}

func tryRead(path string) string {
	if entries, err := os.ReadDir(path); err == nil {
		return fmt.Sprint("entries ", len(entries) > 0)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return outcome(err)
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Read(fd, make([]byte, 64))
	return fmt.Sprint("bytes ", n > 0, " ", outcome(err))
}

func tryWrite(path string) string {
	flags := unix.O_WRONLY | unix.O_NONBLOCK
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		flags = unix.O_TMPFILE | unix.O_WRONLY
	}
	fd, err := unix.Open(path, flags, 0o600)
	if err == nil {
		err = unix.Close(fd)
	}
	return outcome(err)
}

// probeSettings are those of the namespaces.
func probeSettings() error {
	for _, name := range []string{
		"kernel/shm_rmid_forced", "kernel/shmmax", "kernel/msgmnb", "kernel/domainname", "fs/mqueue/msg_max", "net/ipv4/ping_group_range", "net/ipv4/ip_unprivileged_port_start",
		"net/ipv4/ip_forward", "net/core/somaxconn", "user/max_user_namespaces",
	} {
		text, err := os.ReadFile("/proc/sys/" + name)
		fact("setting", name, strings.Join(strings.Fields(string(text)), " "), outcome(err))
	}
	interfaces, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(interfaces)), "\n") {
		if name, _, _ := strings.Cut(line, ":"); i > 1 {
			fact("interface", strings.TrimSpace(name))
		}
	}
	return nil
}

// lastCall is beyond the newest system call that a kernel of today has.
const lastCall = 480

// probeCalls makes every system call with arguments that can't do anything, each in a
// process of its own, and says how it ended: what a filter refuses ends otherwise than
// what the kernel does.
func probeCalls() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for nr := range lastCall {
		if slices.Contains(unsafeCalls(), nr) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		cmd := exec.CommandContext(ctx, self, "call", strconv.Itoa(nr))
		cmd.Args[0] = "probe"
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		cancel()
		var exit *exec.ExitError
		switch {
		case err == nil:
			fact("call", nr, strings.TrimSpace(string(out)))
		case errors.As(err, &exit):
			fact("call", nr, exit.ProcessState)
		default:
			return err
		}
	}
	return nil
}

// unsafeCalls end the process that makes them, begin another one, wait for ever or for the
// disk, whatever their arguments.
func unsafeCalls() []int {
	return append([]int{unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGRETURN, unix.SYS_SYNC, unix.SYS_PPOLL, unix.SYS_PSELECT6}, waitingCalls()...)
}

// tryCall makes one system call, all of whose arguments are -1: no file, no address and
// no flags that exist.
func tryCall(number string) error {
	nr, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	const none = ^uintptr(0)
	_, _, errno := unix.RawSyscall6(uintptr(nr), none, none, none, none, none, none)
	if errno == 0 {
		fmt.Println("done")
	} else {
		fmt.Println(outcome(errno))
	}
	return nil
}

func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}
