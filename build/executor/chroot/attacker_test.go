package chroot

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacker is a program that tries to get out of the step it runs in. It says what it has reached; the test looks at
// its victims as well.
type attacker struct {
	victims []int // processes outside: the engine, the supervisor, the first of the machine, another of root, one of 1000
	canary  string
	word    string // what is in the canary, and in the engine's environment
	reached int
}

// reach notes a success.
func (a *attacker) reach(format string, args ...any) {
	a.reached++
	fmt.Fprintf(stdout(), "REACHED "+format+"\n", args...)
}

// refuse expects an error.
func (a *attacker) refuse(err error, format string, args ...any) {
	if err == nil {
		a.reach(format, args...)
	}
}

func syscallOf(nr uintptr, args ...uintptr) error {
	var six [6]uintptr
	copy(six[:], args)
	_, _, errno := unix.RawSyscall6(nr, six[0], six[1], six[2], six[3], six[4], six[5])
	if errno != 0 {
		return errno
	}
	return nil
}

// attack gets the canary's path and word and the numbers of the victims.
func attack(args []string) int {
	runtime.LockOSThread()
	a := &attacker{canary: args[0], word: args[1], victims: []int{os.Getppid(), 1}}
	for _, arg := range args[2:] {
		pid, err := strconv.Atoi(arg)
		if err != nil {
			panic(err)
		}
		a.victims = append(a.victims, pid)
	}
	a.leave()
	a.processes("as root")
	a.procfs()
	a.racePaths()
	a.devices()
	a.kernel()
	a.terminals()
	a.descriptors()
	a.fileCapabilities()
	// Last, since there is no way back: as another user.
	if err := syscallOf(unix.SYS_SETRESGID, 1000, 1000, 1000); err != nil {
		panic(err)
	}
	if err := syscallOf(unix.SYS_SETRESUID, 1000, 1000, 1000); err != nil {
		panic(err)
	}
	a.processes("as 1000")
	fmt.Fprintf(stdout(), "attacked, %d reached\n", a.reached)
	return 0
}

// look opens a file in every way and says whether the canary's word is in it.
func (a *attacker) look(name string) {
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_PATH} {
		fd, err := unix.Open(name, flags|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		buf := make([]byte, 64<<10)
		if n, err := unix.Read(fd, buf); err == nil && bytes.Contains(buf[:n], []byte(a.word)) {
			a.reach("%s is readable", name)
		}
		_ = unix.Close(fd)
	}
}

// leave tries to open what is outside of the root.
func (a *attacker) leave() {
	_ = unix.Mkdir("/x", 0o755)
	up, _ := unix.Open("/", unix.O_RDONLY, 0)
	a.refuse(unix.Chroot("/x"), "chroot")
	_ = unix.Fchdir(up)
	for range 20 {
		_ = unix.Chdir("..")
	}
	a.look("." + a.canary)
	a.look(strings.Repeat("../", 30) + a.canary)
	a.look(a.canary)
	_ = unix.Chdir("/")
	a.refuse(unix.PivotRoot(".", "."), "pivot_root")
	a.refuse(unix.Mount("x", "/x", "tmpfs", 0, ""), "mount")
	a.refuse(unix.Mount("/", "/x", "", unix.MS_BIND, ""), "bind mount")
	a.refuse(unix.Unshare(unix.CLONE_NEWUSER), "unshare of users")
	a.refuse(unix.Unshare(unix.CLONE_NEWNS), "unshare of mounts")
	_, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)
	a.refuse(err, "open_tree")
	_, err = unix.Fsopen("tmpfs", 0)
	a.refuse(err, "fsopen")
	// A handle of the outer root: inode 2 of most file systems.
	handle := unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0})
	_, err = unix.OpenByHandleAt(up, handle, unix.O_RDONLY)
	a.refuse(err, "open_by_handle_at")
	cmd := exec.Command("/program") //nolint:noctx // an attack does not end early
	cmd.Env = []string{playVar + "=capabilities"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	a.refuse(cmd.Start(), "clone of a user namespace")
}

// processes tries to signal, trace, read and limit foreign processes.
func (a *attacker) processes(who string) {
	for _, pid := range append([]int{-1}, a.victims...) {
		p := uintptr(pid)
		if pid < 0 {
			_ = unix.Kill(pid, unix.SIGUSR1) // it never fails: whether it arrives the victims know
			continue
		}
		a.refuse(unix.Kill(pid, unix.SIGUSR1), "%s kill %d", who, pid)
		if pid > 1 {
			a.refuse(unix.Kill(-pid, unix.SIGUSR1), "%s kill of group %d", who, pid)
		}
		a.refuse(syscallOf(unix.SYS_TKILL, p, uintptr(unix.SIGUSR1)), "%s tkill %d", who, pid)
		a.refuse(unix.Tgkill(pid, pid, unix.SIGUSR1), "%s tgkill %d", who, pid)
		info := [128]byte{8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff}
		a.refuse(syscallOf(unix.SYS_RT_SIGQUEUEINFO, p, uintptr(unix.SIGUSR1), uintptr(unsafe.Pointer(&info))), "%s sigqueue %d", who, pid)
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			a.refuse(unix.PidfdSendSignal(fd, unix.SIGUSR1, nil, 0), "%s signal by descriptor %d", who, pid)
			_, err := unix.PidfdGetfd(fd, 0, 0)
			a.refuse(err, "%s steal a descriptor of %d", who, pid)
			a.refuse(unix.Setns(fd, unix.CLONE_NEWNS), "%s enter the namespace of %d", who, pid)
			_ = unix.Close(fd)
		}
		a.refuse(syscallOf(unix.SYS_PTRACE, unix.PTRACE_ATTACH, p), "%s trace %d", who, pid)
		a.refuse(syscallOf(unix.SYS_PTRACE, unix.PTRACE_SEIZE, p), "%s seize %d", who, pid)
		buf := make([]byte, 8)
		local := []unix.Iovec{{Base: &buf[0]}}
		local[0].SetLen(len(buf))
		for _, addr := range []uintptr{0x400000, 0x401000} {
			remote := []unix.RemoteIovec{{Base: addr, Len: len(buf)}}
			_, err := unix.ProcessVMReadv(pid, local, remote, 0)
			a.refuse(err, "%s read memory of %d", who, pid)
			_, err = unix.ProcessVMWritev(pid, local, remote, 0)
			a.refuse(err, "%s write memory of %d", who, pid)
		}
		a.refuse(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3}, nil), "%s limit %d", who, pid)
		a.refuse(unix.Setpriority(unix.PRIO_PROCESS, pid, 19), "%s slow %d", who, pid)
		a.refuse(unix.Setpriority(unix.PRIO_PGRP, pid, 19), "%s slow group %d", who, pid)
		var set unix.CPUSet
		set.Set(0)
		a.refuse(unix.SchedSetaffinity(pid, &set), "%s pin %d", who, pid)
		a.refuse(syscallOf(unix.SYS_IOPRIO_SET, 1, p, 3<<13), "%s starve %d", who, pid)
		a.refuse(syscallOf(unix.SYS_KCMP, p, p, 0, 0, 0), "%s compare %d", who, pid)
		a.signalByFile(who, pid)
	}
	a.refuse(unix.Setpriority(unix.PRIO_USER, 0, 19), "%s slow all of a user", who)
}

// signalByFile asks the kernel to send a signal when a pipe can be read.
func (a *attacker) signalByFile(who string, pid int) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		panic(err)
	}
	_, _ = unix.FcntlInt(uintptr(pipe[0]), unix.F_SETSIG, int(unix.SIGUSR1))
	_, _ = unix.FcntlInt(uintptr(pipe[0]), unix.F_SETOWN, pid)
	owner := [2]int32{1, int32(pid)}
	_ = syscallOf(unix.SYS_FCNTL, uintptr(pipe[0]), unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner)))
	_, _ = unix.FcntlInt(uintptr(pipe[0]), unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK)
	_, _ = unix.Write(pipe[1], []byte("x")) // whether it arrives the victim knows
	_ = unix.Close(pipe[0])
	_ = unix.Close(pipe[1])
	_ = who
}

// procfs tries what /proc would give away of foreign processes.
func (a *attacker) procfs() {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		panic(err)
	}
	own, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		panic(err)
	}
	for _, pid := range a.victims {
		if pid == 1 { // that is what the step's first process is called as well
			a.look("/proc/1/root" + a.canary)
			continue
		}
		for _, name := range []string{"environ", "mem", "root" + a.canary, "cwd" + a.canary, "fd/0", "fd/1", "exe", "maps", "stat"} {
			foreign := fmt.Sprintf("%d/%s", pid, name)
			for _, p := range []string{
				"/proc/" + foreign, "/proc/./" + foreign, "//proc//" + foreign, "/proc/self/../" + foreign, "/proc/self/task/../../" + foreign,
				"/proc/self/fd/../../" + foreign, "/proc/thread-self/../../../" + foreign, "/proc/self/root/proc/" + foreign,
				"/proc/self/cwd/proc/" + foreign, fmt.Sprintf("/proc/self/fd/%d/%s", dir, foreign), fmt.Sprintf("/dev/fd/%d/%s", dir, foreign),
				"/proc/0" + foreign, "/proc/+" + foreign,
			} {
				a.look(p)
				if name == "stat" {
					var st unix.Stat_t
					a.refuse(unix.Stat(p, &st), "stat %s", p)
				}
			}
			for from, p := range map[int]string{dir: foreign, own: "../../" + foreign} {
				fd, err := unix.Openat(from, p, unix.O_RDONLY, 0)
				if err == nil {
					a.reach("%s by descriptor", p)
					_ = unix.Close(fd)
				}
				a.refuse(unix.Fchmodat(from, p, 0o777, 0), "chmod %s by descriptor", p)
			}
		}
		_ = unix.Chdir("/proc/self")
		a.look(fmt.Sprintf("../%d/environ", pid))
		_ = unix.Chdir("/")
	}
	for _, name := range []string{"sys/kernel/core_pattern", "sys/kernel/sysrq", "sysrq-trigger", "sys/vm/drop_caches", "self/root/proc/sys/kernel/core_pattern"} {
		fd, err := unix.Open("/proc/"+name, unix.O_WRONLY, 0)
		if err == nil {
			a.reach("%s is writable", name)
			_ = unix.Close(fd)
		}
	}
	list, err := os.ReadDir("/proc")
	for _, d := range list {
		for _, pid := range a.victims {
			if d.Name() == strconv.Itoa(pid) {
				a.reach("process %d is listed", pid)
			}
		}
	}
	if err != nil || len(list) < 10 {
		a.reach("no /proc at all: %v", err)
	}
}

// racePaths changes a path while it is being looked at.
func (a *attacker) racePaths() {
	engine := a.victims[2]
	good, bad := "/proc/self/environ\x00", fmt.Sprintf("/proc/%d/environ\x00", engine)
	buf := make([]byte, 64)
	copy(buf, good)
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !stop.Load() {
			copy(buf, bad)
			copy(buf, good)
		}
	}()
	data := make([]byte, 64<<10)
	for range 3000 {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&buf[0])), unix.O_RDONLY, 0, 0, 0)
		if errno != 0 {
			continue
		}
		if n, err := unix.Read(int(fd), data); err == nil && bytes.Contains(data[:n], []byte("WORD="+a.word)) {
			a.reach("the engine's environment in a race")
		}
		_ = unix.Close(int(fd))
	}
	stop.Store(true)
	<-ended
}

// devices tries to get at disks and memory.
func (a *attacker) devices() {
	for _, d := range [][2]uint32{{8, 0}, {253, 0}, {254, 0}, {259, 0}, {7, 0}, {1, 1}, {1, 2}, {1, 4}, {10, 237}, {5, 1}} {
		for _, kind := range []uint32{unix.S_IFBLK, unix.S_IFCHR} {
			err := unix.Mknod("/x/node", kind|0o666, int(unix.Mkdev(d[0], d[1])))
			a.refuse(err, "mknod of %d:%d", d[0], d[1])
			_ = unix.Unlink("/x/node")
		}
	}
	for _, name := range []string{"/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/console"} {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			a.reach("%s", name)
			_ = unix.Close(fd)
		}
	}
}

// kernel tries calls that reach past all that is looked at.
func (a *attacker) kernel() {
	var params [256]byte
	p := uintptr(unsafe.Pointer(&params))
	for name, c := range map[string][]uintptr{
		"io_uring_setup": {unix.SYS_IO_URING_SETUP, 8, p}, "userfaultfd": {unix.SYS_USERFAULTFD, 0}, "bpf": {unix.SYS_BPF, 0, p, 128},
		"perf_event_open": {unix.SYS_PERF_EVENT_OPEN, p, 0, ^uintptr(0), ^uintptr(0), 0}, "add_key": {unix.SYS_ADD_KEY, p, p, p, 1, ^uintptr(2)},
		"keyctl": {unix.SYS_KEYCTL, 0, ^uintptr(2), 1}, "request_key": {unix.SYS_REQUEST_KEY, p, p, 0, ^uintptr(2)}, "setns": {unix.SYS_SETNS, 0, 0},
		"kexec_load": {unix.SYS_KEXEC_LOAD, 0, 0, 0, 0}, "init_module": {unix.SYS_INIT_MODULE, p, 1, p}, "reboot": {unix.SYS_REBOOT, 0xfee1dead, 672274793, 0, 0},
		"syslog": {unix.SYS_SYSLOG, 3, p, 16}, "acct": {unix.SYS_ACCT, 0}, "swapon": {unix.SYS_SWAPON, p, 0}, "fanotify_init": {unix.SYS_FANOTIFY_INIT, 0, 0},
		"migrate_pages": {unix.SYS_MIGRATE_PAGES, uintptr(a.victims[2]), 1, p, p}, "settimeofday": {unix.SYS_SETTIMEOFDAY, p, 0},
		"sethostname": {unix.SYS_SETHOSTNAME, p, 1}, "process_madvise": {unix.SYS_PROCESS_MADVISE, ^uintptr(0), p, 1, 21, 0},
		"unshare": {unix.SYS_UNSHARE, unix.CLONE_FS}, "clone3": {unix.SYS_CLONE3, p, 88},
	} {
		a.refuse(syscallOf(c[0], c[1:]...), "%s", name)
	}
	for _, nr := range x32Calls() { // the same by x32's numbers
		a.refuse(syscallOf(nr, p, p, p), "call %#x", nr)
	}
	a.refuse(syscallOf(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, allowAll()), "a listener of its own")
	for _, kind := range []int{unix.SOCK_RAW, unix.SOCK_PACKET} {
		for _, family := range []int{unix.AF_INET, unix.AF_PACKET, unix.AF_VSOCK} {
			_, err := unix.Socket(family, kind, 255)
			a.refuse(err, "raw socket %d %d", family, kind)
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		panic(err)
	}
	a.refuse(unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + a.word}), "abstract socket")
	a.refuse(unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Dir(a.canary) + "/socket"}), "socket outside")
}

func allowAll() uintptr {
	filter := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	prog := &unix.SockFprog{Len: 1, Filter: &filter}
	return uintptr(unsafe.Pointer(prog))
}

// terminals tries those of others, and typing into one.
func (a *attacker) terminals() {
	for n := range 16 {
		fd, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY, 0)
		if err == nil {
			a.reach("terminal %d", n)
			_ = unix.Close(fd)
		}
	}
	for fd := range 3 {
		c := byte('x')
		a.refuse(syscallOf(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c))), "type into %d", fd)
		a.refuse(syscallOf(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI|1<<32, uintptr(unsafe.Pointer(&c))), "type into %d", fd)
	}
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		a.reach("no terminal of its own: %v", err)
		return
	}
	c := byte('x')
	a.refuse(syscallOf(unix.SYS_IOCTL, uintptr(master), unix.TIOCSTI, uintptr(unsafe.Pointer(&c))), "type into its own")
	_ = unix.Close(master)
}

// descriptors looks for any that was left open: all that are folders, and the binary that runs a step.
func (a *attacker) descriptors() {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, d := range list {
		target, _ := os.Readlink("/proc/self/fd/" + d.Name())
		if strings.Contains(target, a.canary) || strings.Contains(target, "wherry") || strings.Contains(target, "journal") {
			a.reach("descriptor %s is %s", d.Name(), target)
		}
	}
}

// fileCapabilities makes a program that has capabilities by its file.
func (a *attacker) fileCapabilities() {
	data, err := os.ReadFile("/program")
	if err == nil {
		err = os.WriteFile("/x/capable", data, 0o755)
	}
	if err != nil {
		panic(err)
	}
	caps := []byte{1, 0, 0, 2, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // CAP_SYS_CHROOT, CAP_MKNOD, effective
	_ = unix.Setxattr("/x/capable", "security.capability", caps, 0)
	cmd := exec.Command("/x/capable") //nolint:noctx // an attack does not end early
	cmd.Env = []string{playVar + "=capabilities"}
	out, err := cmd.CombinedOutput()
	if err == nil && !strings.HasPrefix(string(out), "a00005fb") {
		a.reach("capabilities %s", out)
	}
	_ = os.RemoveAll("/x")
}
