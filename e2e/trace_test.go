package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// change is a system call that changes, or makes durable, what is below a folder.
type change struct {
	what string // the call: "openat", "write", "renameat", ...
	path string // of the file, or of what is renamed
	to   string // where a rename or link leads
}

func (c change) String() string { return strings.TrimSpace(c.what + " " + c.path + " " + c.to) }

// tracer follows a program through its system calls.
type tracer struct {
	dir     string            // changes below this folder are looked at
	before  func(change) bool // told of each that is about to happen; false kills the program instead
	after   func(change)      // told of each that has happened; may be nil
	pending map[int]change    // by thread
}

// changing are the calls that count, and what their arguments are: a descriptor, or one or two paths.
func changing(nr uint64) (what string, paths [2]int) {
	const fd, none = -2, -1
	switch nr {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV:
		return "write", [2]int{fd, none}
	case unix.SYS_COPY_FILE_RANGE: // its third argument is where to: told apart below
		return "copy", [2]int{fd, none}
	case unix.SYS_FTRUNCATE:
		return "truncate", [2]int{fd, none}
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		return "sync", [2]int{fd, none}
	case unix.SYS_OPENAT:
		return "create", [2]int{1, none}
	case unix.SYS_MKDIRAT:
		return "mkdir", [2]int{1, none}
	case unix.SYS_UNLINKAT:
		return "unlink", [2]int{1, none}
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "rename", [2]int{1, 3}
	case unix.SYS_LINKAT:
		return "link", [2]int{1, 3}
	}
	return "", [2]int{none, none}
}

// syscallInfo is the kernel's struct ptrace_syscall_info.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	_    [2]uint64
	nr   uint64 // of an exit: what is returned
	args [6]uint64
}

// changeOf tells what a thread is about to do; false if it is nothing that counts.
func (t *tracer) changeOf(pid int, info *syscallInfo) (change, bool) {
	what, paths := changing(info.nr)
	if what == "" || what == "create" && info.args[2]&(unix.O_CREAT|unix.O_TRUNC) == 0 {
		return change{}, false
	}
	c := change{what: what}
	if paths[0] < 0 {
		n := info.args[0]
		if what == "copy" {
			n = info.args[2]
		}
		c.path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, n))
	} else {
		c.path = readString(pid, info.args[paths[0]])
	}
	if paths[1] > 0 {
		c.to = readString(pid, info.args[paths[1]])
	}
	below := func(p string) bool { return p == t.dir || strings.HasPrefix(p, t.dir+"/") }
	return c, below(c.path) || below(c.to)
}

// readString reads a path out of a program's memory.
func readString(pid int, addr uint64) string {
	buf := make([]byte, unix.PathMax)
	// To the end of the page first: the next one may not be there.
	for _, n := range []int{len(buf), os.Getpagesize() - int(addr)%os.Getpagesize()} {
		local := []unix.Iovec{{Base: &buf[0]}}
		local[0].SetLen(n)
		got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
		if err != nil {
			continue
		}
		if end := bytes.IndexByte(buf[:got], 0); end >= 0 {
			return filepath.Clean(string(buf[:end]))
		}
	}
	return ""
}

// run executes cmd, which must be in a process group of its own and write to files only, and returns its exit code; -1
// if it was killed.
func (t *tracer) run(cmd *exec.Cmd) (code int, err error) {
	runtime.LockOSThread() // the kernel lets only the thread that started it trace
	defer runtime.UnlockOSThread()
	t.pending = map[int]change{}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	defer cmd.Process.Release() //nolint:errcheck // it was waited for below
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return 0, errors.Join(err, unix.Kill(-pid, unix.SIGKILL))
	}
	if err := unix.PtraceSyscall(pid, 0); err != nil {
		return 0, err
	}
	for {
		thread, err := unix.Wait4(-pid, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if thread == pid && (status.Exited() || status.Signaled()) {
			if status.Exited() {
				return status.ExitStatus(), nil
			}
			return -1, nil
		}
		if status.Stopped() {
			t.stopped(pid, thread, status)
		}
	}
}

// stopped looks at a thread that has stopped, and lets it go on. A thread that is gone by now doesn't mind.
func (t *tracer) stopped(pid, thread int, status unix.WaitStatus) {
	const trap = unix.SIGTRAP | 0x80 // a system call
	deliver := 0
	switch signal := status.StopSignal(); {
	case signal == trap:
		if !t.atSyscall(thread) {
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
	case signal == unix.SIGTRAP, signal == unix.SIGSTOP: // a new thread
	default:
		deliver = int(signal)
	}
	_ = unix.PtraceSyscall(thread, deliver)
}

func (t *tracer) atSyscall(thread int) (goOn bool) {
	const entry, exit, getSyscallInfo = 1, 2, 0x420e
	var info syscallInfo
	_, _, failed := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(thread),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if failed != 0 {
		return true
	}
	switch info.op {
	case entry:
		if c, ok := t.changeOf(thread, &info); ok {
			if !t.before(c) {
				return false
			}
			t.pending[thread] = c
		}
	case exit:
		if c, ok := t.pending[thread]; ok {
			delete(t.pending, thread)
			if t.after != nil && int64(info.nr) >= 0 {
				t.after(c)
			}
		}
	}
	return true
}

// order checks that nothing depends on what a power failure could undo.
type order struct {
	dir    string
	dirty  map[string]bool // files written to since they were synced
	names  map[string]bool // folders with names that are not durable
	faults []string        // what was done too early
}

func newOrder(dir string) *order {
	return &order{dir: dir, dirty: map[string]bool{}, names: map[string]bool{}}
}

// before a file gets its place it must be on the disk, and before index.json names blobs the blobs' names must be. No
// blob goes while a power failure could bring back an index.json that names it.
func (o *order) before(c change) bool {
	switch c.what {
	case "write", "copy", "truncate":
		o.dirty[c.path] = true
	case "rename", "link":
		if o.isPlace(c.to) && o.dirty[c.path] {
			o.faults = append(o.faults, "not synced before: "+c.String())
		}
		if c.to == filepath.Join(o.dir, "index.json") {
			for dir := range o.names {
				if strings.HasPrefix(dir, filepath.Join(o.dir, "blobs")) {
					o.faults = append(o.faults, "names of "+dir+" not synced before: "+c.String())
				}
			}
		}
	case "unlink":
		if o.isPlace(c.path) && o.names[o.dir] {
			o.faults = append(o.faults, "the index was not synced before: "+c.String())
		}
	}
	return true
}

func (o *order) isPlace(path string) bool {
	return strings.HasPrefix(path, filepath.Join(o.dir, "blobs")+"/") || path == filepath.Join(o.dir, "index.json")
}

func (o *order) after(c change) {
	switch c.what {
	case "sync":
		delete(o.dirty, c.path)
		delete(o.names, c.path)
	case "rename", "link":
		if o.isPlace(c.to) {
			o.names[filepath.Dir(c.to)] = true
		}
		if c.what == "rename" {
			o.dirty[c.to] = o.dirty[c.path]
			delete(o.dirty, c.path)
		}
	}
}

// end is when the program has reported success: all it did must last.
func (o *order) end() []string {
	for dir := range o.names {
		o.faults = append(o.faults, "names of "+dir+" not synced in the end")
	}
	slices.Sort(o.faults)
	return o.faults
}
