package chroot

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// FuzzUnder checks the parser of paths against what it is for: whatever it says lies in a tree does so for the kernel.
func FuzzUnder(f *testing.F) {
	for _, p := range []string{"/proc/self/fd/0", "//proc/./1/../x", "/dev/stdout", "proc/self", "/", "", "/procx", "/../proc/1", "/dev", "/proc/\x00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		tree, rest, ok := under(p)
		if !ok {
			return
		}
		if !strings.HasPrefix(p, "/") || tree != "proc" && tree != "dev" || tree == "dev" && len(rest) == 0 {
			t.Fatalf("%q is %q %q", p, tree, rest)
		}
		depth := 0
		for _, part := range rest {
			if part == "" || part == "." || strings.Contains(part, "/") {
				t.Fatalf("%q has the component %q", p, part)
			}
			depth++
		}
		if want := filepath.Clean("/" + tree + "/" + strings.Join(rest, "/")); want != filepath.Clean(p) {
			t.Fatalf("%q is %q, want %q", p, want, filepath.Clean(p))
		}
		parts := append([]string{"1"}, rest...)
		if kind := classify(parts); kind != plain && len(parts) < 2 {
			t.Fatalf("%q is of kind %d", parts, kind)
		}
	})
}

// fuzzVar makes this binary run FuzzServer's seeds. A worker of the fuzzing engine needs no variable.
const fuzzVar = "CHROOT_TEST_FUZZ"

// fuzzWord is in the environment of TestFuzzSeeds' process, and should be in that of go test -fuzz: no answer may give it
// away.
const fuzzWord = "WORD=fuzz-5c21e"

// target is a server as in a supervisor, in a root of its own, and processes that call it.
type target struct {
	s       *server
	callers [2]int
	buffer  [2]uint64 // where there is room for a path in each of them
}

// newTarget changes the root of this process and gives most of its rights up.
func newTarget() (*target, error) {
	root, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"proc", "dev", "dev/pts", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o777); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(root, 0o755); err != nil { // the other caller has to reach it
		return nil, err
	}
	dir, err := step.OpenRootDir(root)
	if err != nil {
		return nil, err
	}
	if err := putStatic(root, "sleep"); err != nil {
		return nil, err
	}
	tg := &target{}
	if tg.s, err = newServer(dir, &plan{StandIns: true}); err != nil {
		return nil, err
	}
	tg.s.waits = func(uint64) bool { return true }
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := joinErrors(unix.Chroot(root), unix.Chdir("/"), giveUpRights()); err != nil {
		return nil, step.Setup(err, "enter root")
	}
	for i := range tg.callers {
		cmd := exec.Command("/sleep", "10000") //nolint:noctx // it goes when this process does
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = []string{}, null, null, null
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uint32(1000 * i), Gid: uint32(1000 * i)}}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		tg.callers[i] = cmd.Process.Pid
		if tg.buffer[i], err = tg.stackOf(i); err != nil {
			return nil, err
		}
	}
	tg.s.first = tg.callers[0]
	return tg, nil
}

func joinErrors(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// putStatic copies busybox as a name.
func putStatic(root, name string) error {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, name), data, 0o755)
}

// caller is the thread that a notification would come from.
func (tg *target) caller(i int) *caller {
	return &caller{s: tg.s, n: &seccomp.Notice{}, tid: tg.callers[i]}
}

// stackOf is an address in a caller's stack.
func (tg *target) stackOf(i int) (uint64, error) {
	c := tg.caller(i)
	var maps []byte
	err := c.as(func() (err error) {
		maps, err = tg.s.read(strconv.Itoa(c.tid) + "/maps")
		return err
	})
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(maps), "\n") {
		if strings.HasSuffix(line, "[stack]") {
			low, _, _ := strings.Cut(line, "-")
			return strconv.ParseUint(low, 16, 64)
		}
	}
	return 0, fmt.Errorf("process %d has no stack: %s", c.tid, maps)
}

// numbers are all that the filter may send, in an order.
func numbers(s *server) []seccomp.Call {
	var out []seccomp.Call
	for n := range s.calls {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b seccomp.Call) int {
		if a.Arch != b.Arch {
			return int(int64(a.Arch) - int64(b.Arch))
		}
		return int(a.Nr) - int(b.Nr)
	})
	return out
}

// FuzzServer makes calls with any number, path, flags and addresses, as root and as another user, and looks at what
// would be handed out.
func FuzzServer(f *testing.F) {
	worker := slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzzworker") })
	var once sync.Once
	var tg *target
	for nr := range 70 {
		for _, p := range []string{"/proc/self/fd/1", "/proc/self/exe", "/proc/1/root/proc/self/environ", "/dev/ptmx", "/proc/cpuinfo", "/proc/self/task/../../self/cwd/tmp/x", "/proc/"} {
			f.Add(uint8(nr), p, uint64(0), uint64(0o100), uint64(0), nr%2 == 0)
		}
	}
	f.Add(uint8(3), fmt.Sprintf("/proc/%d/environ", os.Getpid()), uint64(0), uint64(0), uint64(0), true)
	f.Add(uint8(3), fmt.Sprintf("/proc/%d/environ", os.Getppid()), uint64(0), uint64(0), uint64(0), true)
	f.Fuzz(func(t *testing.T, nr uint8, p string, flags, more, addr uint64, other bool) {
		if !worker && env(fuzzVar) == "" {
			t.Skip("TestFuzzSeeds runs this where it belongs")
		}
		if unix.Geteuid() != 0 {
			t.Skip("changing the root needs root")
		}
		once.Do(func() {
			made := make(chan error)
			go func() {
				runtime.LockOSThread() // the callers end with the thread that has started them
				var err error
				tg, err = newTarget()
				made <- err
				select {}
			}()
			if err := <-made; err != nil {
				t.Fatal(err)
			}
		})
		if tg == nil {
			t.Fatal("there is no server")
		}
		tg.call(t, nr, p, flags, more, addr, other)
	})
}

func (tg *target) call(t *testing.T, nr uint8, p string, flags, more, addr uint64, other bool) {
	i := 0
	if other {
		i = 1
	}
	list := numbers(tg.s)
	which := list[int(nr)%len(list)]
	n := &seccomp.Notice{ID: 1, PID: uint32(tg.callers[i]), Nr: which.Nr, Arch: which.Arch}
	at := tg.buffer[i]
	if len(p) > 4000 {
		p = p[:4000]
	}
	if errno := onThread(func() unix.Errno { return tg.caller(i).store(at, append([]byte(p), 0)) }); errno != 0 {
		t.Fatalf("write a path: %v", errno)
	}
	n.Args = [6]uint64{at, flags, more, addr, flags, more}
	if what := tg.s.calls[which].path; what != nil {
		dirfd := uint64(0xffffff9c) // AT_FDCWD
		if what.dirfd >= 0 {
			n.Args = [6]uint64{dirfd, at, flags, more, addr, flags}
		}
	}
	a := onThread(func() answer { return tg.s.handle(n) })
	if !a.done || a.errno != 0 || a.file == 0 {
		return
	}
	defer step.Closing(a.file)
	tg.inspect(t, p, a.file)
}

// onThread calls f on a thread of its own, as servers do.
func onThread[T any](f func() T) T {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

// inspect fails if a descriptor is more than a caller may have.
func (tg *target) inspect(t *testing.T, p string, fd int) {
	var st unix.Stat_t
	var fsType unix.Statfs_t
	if err := joinErrors(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fsType)); err != nil {
		t.Fatal(err)
	}
	if fsType.Type == unix.PROC_SUPER_MAGIC && st.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Fatalf("%q: a folder of /proc is handed out", p)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		t.Fatalf("%q: a block device is handed out", p)
	}
	buf := make([]byte, 256<<10)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_PATH != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	if n, err := unix.Pread(fd, buf, 0); err == nil && bytes.Contains(buf[:n], []byte(fuzzWord)) {
		t.Fatalf("%q: the server's environment is handed out", p)
	}
}

// TestFuzzSeeds runs the seeds of FuzzServer in a process that may change its root.
func TestFuzzSeeds(t *testing.T) {
	if os.Geteuid() != 0 || env(innerVar) != "" {
		t.Skip("it needs all rights, to give them up")
	}
	_ = steptest.BusyboxRoot(t) // skips without busybox
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=FuzzServer", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), fuzzVar+"=1", "TMPDIR="+t.TempDir(), "WORD="+fuzzWord)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: FuzzServer")) || bytes.Contains(out, []byte("SKIP")) {
		t.Errorf("%v\n%s", err, out)
	}
}
