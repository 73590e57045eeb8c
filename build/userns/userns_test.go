//go:build linux

package userns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/userns"
)

// scene is the variable that makes this binary play a program that uses the package.
const scene = "USERNS_TEST_SCENE"

func TestMain(m *testing.M) {
	if os.Args[0] == userns.InitArg0 {
		userns.Init()
	}
	if s := env(scene); s != "" {
		os.Exit(play(s))
	}
	os.Exit(m.Run())
}

// env and say are what the program has that this binary plays.
func env(name string) string {
	return os.Getenv(name) //nolint:forbidigo // a program's own environment
}

func say(args ...any) {
	fmt.Println(args...) //nolint:forbidigo // a program's own output
}

// play enters the namespaces and does there what the scene says.
func play(s string) int {
	if rest, ok := strings.CutPrefix(s, "seccomp-"); ok && !strings.HasPrefix(os.Args[0], "wherry-inside") {
		if err := forbidNamespaces(); err != nil {
			say(err)
			return 9
		}
		s = rest
	}
	code, entered, err := userns.Enter(context.Background(), userns.Options{
		SingleID: strings.HasPrefix(s, "single"),
		Notice:   func(msg string) { say("notice:", msg) },
	})
	var denied *userns.NotPermittedError
	switch {
	case errors.As(err, &denied):
		say(fmt.Sprintf("denied: %s\nhint: %s", denied.Reason, denied.Hint))
		return 7
	case err != nil:
		say(err)
		return 8
	case entered:
		return code
	}
	return perform(strings.TrimPrefix(s, "single-"))
}

// forbidNamespaces loads a seccomp filter like those of containers.
func forbidNamespaces() error {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_UNSHARE, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE, SkipFalse: 3},
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, SkipFalse: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fp := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fp))); errno != 0 {
		return errno
	}
	return nil
}

func perform(s string) int {
	uid, _ := os.ReadFile("/proc/self/uid_map")
	say(fmt.Sprintf("mapping=%s euid=%d args=%q map=%q", userns.Current(), os.Geteuid(), os.Args[1:], strings.Fields(string(uid))))
	switch s {
	case "exit":
		return 42
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "sleep":
		say("pid", os.Getpid())
		time.Sleep(time.Minute)
	case "mount":
		if err := syscall.Mount("none", "/mnt", "tmpfs", 0, ""); err != nil {
			say(err)
			return 1
		}
		if err := os.WriteFile("/mnt/inside", nil, 0o600); err != nil {
			say(err)
			return 1
		}
	case "own-chown":
		if err := userns.FakeOwnOwnership(); err != nil {
			say(err)
			return 1
		}
		f, err := os.CreateTemp("", "")
		if err != nil {
			return 1
		}
		defer func() { _ = os.Remove(f.Name()) }()
		say(f.Chown(12, 34), os.Chown(f.Name(), 12, 34))
		_, code := run(exec.CommandContext(context.Background(), "chown", "12:34", f.Name()))
		say("another program:", code)
	case "chown":
		f, err := os.CreateTemp("", "")
		if err != nil {
			return 1
		}
		defer func() { _ = os.Remove(f.Name()) }()
		if err := userns.FakeOwnership(); err != nil {
			say(err)
			return 1
		}
		link := f.Name() + ".link"
		defer func() { _ = os.Remove(link) }()
		say(f.Chown(12, 34), os.Chown(f.Name(), 12, 34), os.Symlink("x", link), os.Lchown(link, 1, 2))
		st, err := os.Stat(f.Name())
		say("owner", st.Sys().(*syscall.Stat_t).Uid, err)
	}
	return 0
}

// actor starts this binary as a user (nil: as we are).
func actor(t *testing.T, u *user.User, s string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = []string{scene + "=" + s, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if u != nil {
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return cmd
}

func run(cmd *exec.Cmd) (string, int) {
	out, err := cmd.CombinedOutput()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		return err.Error(), -1
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// newUser makes an unprivileged user for the test; with subordinate ids if ranges is set.
func newUser(t *testing.T, ranges bool) *user.User {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making another user needs root")
	}
	name := fmt.Sprintf("wh%x", time.Now().UnixNano()&0xffffffff)
	if out, err := exec.CommandContext(context.Background(), "useradd", "-M", "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", name).CombinedOutput(); err != nil {
		t.Skipf("useradd: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "userdel", name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v: %s", err, out)
		}
	})
	if ranges {
		if out, err := exec.CommandContext(context.Background(), "usermod", "-v", "700000-765535", "-w", "700000-765535", "-v", "900000-900009", name).CombinedOutput(); err != nil {
			t.Skipf("usermod: %v: %s", err, out)
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestEnter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	ranged, plain := newUser(t, true), newUser(t, false)
	otherGroup := *ranged
	otherGroup.Gid = plain.Gid
	_, helper := exec.LookPath("newuidmap")
	for name, tt := range map[string]struct {
		user    *user.User
		scene   string
		want    []string
		not     string
		code    int
		helpers bool
	}{
		"root":           {scene: "exit", want: []string{"mapping=none euid=0", `args=["a b" "--c"]`}, code: 42},
		"range":          {user: ranged, scene: "exit", want: []string{"mapping=range euid=0", `args=["a b" "--c"]`, `"700000" "65536"`, `"900000" "10"`}, not: "notice", code: 42, helpers: true},
		"no range":       {user: plain, scene: "exit", want: []string{"mapping=single euid=0", "notice: only one id is mapped: /etc/subuid has no line for user"}, code: 42},
		"other group":    {user: &otherGroup, scene: "exit", want: []string{"mapping=single euid=0", "notice: only one id is mapped: newuidmap wants user"}, code: 42, helpers: true},
		"single":         {user: ranged, scene: "single-exit", want: []string{"mapping=single"}, not: "notice", code: 42},
		"killed":         {user: ranged, scene: "die", code: 128 + int(syscall.SIGKILL), helpers: true},
		"mount":          {user: ranged, scene: "mount", helpers: true},
		"mount as root":  {scene: "mount"},
		"fake ownership": {user: plain, scene: "chown", want: []string{"<nil> <nil> <nil> <nil>", "owner 0"}},
		"only our own":   {scene: "single-own-chown", want: []string{"<nil> <nil>", "another program: 1"}},
		"root, one id":   {scene: "single-chown", want: []string{"mapping=single", "<nil> <nil> <nil> <nil>"}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.helpers && helper != nil {
				t.Skip("newuidmap (package uidmap) is not installed")
			}
			out, code := run(actor(t, tt.user, tt.scene, "a b", "--c"))
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, w := range tt.want {
				if !strings.Contains(out, w) {
					t.Errorf("output has no %q", w)
				}
			}
			if tt.not != "" && strings.Contains(out, tt.not) {
				t.Errorf("output has %q", tt.not)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
	if _, err := os.Stat("/mnt/inside"); err == nil {
		t.Error("a mount made inside is seen outside")
	}
}

// TestSignals checks that a signal to the outer process reaches the program, and that kill -9 leaves nothing behind.
func TestSignals(t *testing.T) {
	u := newUser(t, true)
	for name, sig := range map[string]syscall.Signal{"terminate": syscall.SIGTERM, "interrupt": syscall.SIGINT, "kill": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			var out lockedBuffer
			cmd := actor(t, u, "sleep")
			cmd.SysProcAttr.Setsid = true // no terminal that would send the signal as well
			cmd.Stdout = &out
			cmd.WaitDelay = 10 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := waitForPid(t, &out)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if sig != syscall.SIGKILL && cmd.ProcessState.ExitCode() != 128+int(sig) {
				t.Errorf("exit: %v (code %d), want %d", err, cmd.ProcessState.ExitCode(), 128+int(sig))
			}
			for range 100 {
				st, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
				if err != nil || bytes.Contains(st, []byte("State:\tZ")) { // nobody need reap it here
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("process %s is still there", pid)
		})
	}
}

func waitForPid(t *testing.T, out *lockedBuffer) string {
	t.Helper()
	for range 500 {
		if _, rest, ok := strings.Cut(out.String(), "pid "); ok && strings.Contains(rest, "\n") {
			return strings.TrimSpace(rest)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the program did not start: %s", out.String())
	return ""
}

// TestDenied checks that a refusal is one, with its cause and a command that helps.
func TestDenied(t *testing.T) {
	u := newUser(t, false)
	for name, who := range map[string]*user.User{"user": u, "root": nil} {
		out, code := run(actor(t, who, "seccomp-exit"))
		if code != 7 || !strings.Contains(out, "denied: a seccomp filter forbids it, as containers have by default\nhint: docker run --security-opt seccomp=unconfined") {
			t.Errorf("%s behind a filter: exit code %d: %s", name, code, out)
		}
	}
}

// TestRootOfContainer enters as root without CAP_SYS_ADMIN, who may map all its ids by itself.
func TestRootOfContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv (package util-linux) is not installed")
	}
	cmd := actor(t, nil, "mount")
	cmd.Args = append([]string{"setpriv", "--bounding-set", "-sys_admin", cmd.Path}, cmd.Args[1:]...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args[3] = setpriv, self
	if out, code := run(cmd); code != 0 || !strings.Contains(out, "mapping=") || strings.Contains(out, "mapping=single") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
