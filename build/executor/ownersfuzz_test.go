package executor

import (
	"bytes"
	"errors"
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// ownersTarget is a server, and a process that calls it, which has a root of its own.
type ownersTarget struct {
	s      *ownersServer
	caller int
	buffer uint64 // an address in its stack
	root   string
	seen   []string // what is beyond the root, of the files that the server came to
	noted  int
}

// outside is what no answer may come to, by whatever way.
const outside = "/etc/passwd"

func newOwnersTarget(root string) (*ownersTarget, error) {
	tg := &ownersTarget{root: root}
	tg.s = &ownersServer{owners: tg, calls: ownersCalls(), waits: func(*seccomp.Notice) bool { return true }}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	within, err := os.Open(filepath.Join(root, "sub"))
	if err != nil {
		return nil, err
	}
	defer within.Close()
	cmd := exec.Command("/bin/sleep", "10000") //nolint:noctx // it goes when this process does
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/sub", []string{}, null, null, null
	cmd.ExtraFiles = []*os.File{within} // 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	tg.caller = cmd.Process.Pid
	for range 100 { // until it has become the program
		if tg.buffer, err = stackOf(tg.caller); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return tg, err
}

// stackOf is an address in a process's stack that it has no use for now.
func stackOf(pid int) (uint64, error) {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || filepath.Base(exe) != "busybox" {
		return 0, fmt.Errorf("it is %q still: %w", exe, err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(maps), "\n") {
		if strings.HasSuffix(line, "[stack]") {
			low, _, _ := strings.Cut(line, "-")
			return strconv.ParseUint(low, 16, 64)
		}
	}
	return 0, errors.New("it has no stack")
}

// look remembers a file that is neither in the root nor one that the caller has open itself.
func (tg *ownersTarget) look(fd int) {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || name != os.DevNull && name != tg.root && !strings.HasPrefix(name, tg.root+"/") && strings.HasPrefix(name, "/") {
		tg.seen = append(tg.seen, fmt.Sprintf("%q %v", name, err))
	}
}

// NotedAt implements Owners: what is in "owned" is somebody's.
func (tg *ownersTarget) NotedAt(fd int) (uid, gid uint32, err error) {
	tg.look(fd)
	if name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); strings.Contains(name, "owned") {
		return 1234, 5678, nil
	}
	return 0, 0, nil
}

// NoteAt implements Owners.
func (tg *ownersTarget) NoteAt(fd int, _, _ uint32) error {
	tg.look(fd)
	tg.noted++
	return nil
}

// Attribute implements Owners.
func (tg *ownersTarget) Attribute() string { return "user.noted" }

// Adopt implements Owners.
func (tg *ownersTarget) Adopt(string, time.Time, uint32, uint32) error { return nil }

// fill makes the ways out that a root can have.
func fillOwnersRoot(t testing.TB, root string) {
	steptest.WriteFile(t, root, "etc/passwd", "the root's own\n")
	steptest.WriteFile(t, root, "sub/owned", "x")
	for name, to := range map[string]string{
		"sub/up": "../..", "sub/far": "../../../../../../../../etc/passwd", "sub/abs": outside, "sub/loop": "loop", "sub/proc": "/proc/self/root", "sub/link": "owned",
	} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzOwners makes calls about owners with any path, descriptor, flags and addresses. Whatever they are, no file beyond the
// caller's root is come to, no descriptor is left open, and the answer is the kernel's, a success or one of its errors.
func FuzzOwners(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("changing the caller's root needs root")
	}
	root := steptest.BusyboxRoot(f)
	fillOwnersRoot(f, root)
	for nr := range 48 {
		for _, p := range []string{"owned", "up/etc/passwd", "../../../.." + outside, "far", "abs", "loop", "proc" + outside, "/sub/link", "", "//../etc/./passwd", ".."} {
			f.Add(uint8(nr), p, int32(unix.AT_FDCWD), uint64(unix.AT_EMPTY_PATH), uint64(nr), nr%2 == 0)
			f.Add(uint8(nr), p, int32(3), uint64(unix.AT_SYMLINK_NOFOLLOW), uint64(1)<<63, nr%2 == 0)
		}
	}
	var tg *ownersTarget
	started := sync.OnceValue(func() error {
		made := make(chan error)
		go func() {
			runtime.LockOSThread() // the caller ends with the thread that has started it
			var err error
			tg, err = newOwnersTarget(root)
			made <- err
			select {}
		}()
		return <-made
	})
	f.Fuzz(func(t *testing.T, nr uint8, p string, dir int32, flags, more uint64, real bool) {
		if err := started(); err != nil {
			t.Fatal(err)
		}
		tg.call(t, nr, p, dir, flags, more, real)
	})
}

// call makes a call; real: what it writes has room in the caller.
func (tg *ownersTarget) call(t *testing.T, nr uint8, p string, dir int32, flags, more uint64, real bool) {
	if dir > 3 { // what it has of the fuzzing engine
		dir |= 1 << 16
	}
	numbers := tg.numbers()
	n := &seccomp.Notice{ID: 1, PID: uint32(tg.caller), Nr: numbers[int(nr)%len(numbers)].Nr, Arch: numbers[int(nr)%len(numbers)].Arch}
	call := tg.s.calls[numbers[int(nr)%len(numbers)]]
	c := &ownersCaller{s: tg.s, n: n}
	if err := c.store(tg.buffer, append([]byte(p[:min(len(p), 4000)]), 0)); err != nil {
		t.Fatalf("write a path: %v", err)
	}
	n.Args = [6]uint64{more, more, more, more, flags, more}
	if call.flags >= 0 {
		n.Args[call.flags] = flags
	}
	if real {
		n.Args[call.more] = tg.buffer + 8192
	}
	if call.fd >= 0 {
		n.Args[call.fd] = uint64(uint32(dir))
	}
	if call.path >= 0 {
		n.Args[call.path] = tg.buffer
	}
	before := openFiles(t)
	tg.seen = nil
	_, err := tg.s.answer(n)
	if _, errno := errors.AsType[unix.Errno](err); err != nil && !errors.Is(err, errGoOn) && !errno {
		t.Errorf("%q: %v is no answer", p, err)
	}
	if len(tg.seen) > 0 {
		t.Errorf("%q from %d: came to %q", p, dir, tg.seen)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%q: %d files are open, not %d", p, after, before)
	}
}

// numbers are all calls that the server knows, in an order.
func (tg *ownersTarget) numbers() (list []seccomp.Call) {
	for n := range tg.s.calls {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b seccomp.Call) int {
		return bytes.Compare(fmt.Appendf(nil, "%08x %08x", a.Arch, a.Nr), fmt.Appendf(nil, "%08x %08x", b.Arch, b.Nr))
	})
	return list
}

func openFiles(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
