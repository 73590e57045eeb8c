//go:build linux

package executor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// evilVar makes this binary, executed inside a step, say whether its own file could be written to.
const evilVar = "EXECUTOR_TEST_EVIL"

func playEvil() {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		say(err)
		os.Exit(1)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err == nil && st.Flags&unix.ST_RDONLY != 0 {
		say("protected: read-only mount")
	}
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err == nil && seals&unix.F_SEAL_WRITE != 0 {
		say("protected: sealed")
	}
	os.Exit(0)
}

// TestHeldIn tries what a hostile image or step would.
func TestHeldIn(t *testing.T) {
	b := newBench(t)
	for _, tt := range []struct{ name, script, want string }{
		{"mount", "mount -t tmpfs x /tmp 2>/dev/null || echo no", "no"},
		{"namespaces", "unshare -U true 2>/dev/null || echo no", "no"},
		{"kernel settings", "echo 1 2>/dev/null > /proc/sys/kernel/sysrq || echo no", "no"},
		{"sysrq", "echo h 2>/dev/null > /proc/sysrq-trigger || echo no", "no"},
		{"device of its own", "mkdir -p /d; mknod /d/null c 1 3 2>/dev/null; (echo x > /d/null) 2>/dev/null && test -c /d/null && echo open || echo no", "no"},
		{"device in /dev", "mknod /dev/mem2 c 1 1 2>/dev/null; head -c1 /dev/mem2 2>/dev/null || echo no", "no"},
		{"bounding set", "grep -c CapBnd:.*00000000a80425fb /proc/self/status", "1"},
	} {
		if (b.mode == "hostpid" || b.mode == "masked") && strings.HasPrefix(tt.name, "kernel") || strings.HasPrefix(b.mode, "hostpid") && tt.name == "sysrq" || b.mode == "masked" && tt.name == "sysrq" {
			continue // the outer /proc is shared, with whatever its owner allows there
		}
		if got := b.sh(tt.script); got != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
	if b.mode == "" {
		if got := b.sh("cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -v :"); got != "0" {
			t.Errorf("masked paths show %q", got)
		}
	}
}

// TestHostileImage checks that links in an image don't lead mounts or new folders out of it.
func TestHostileImage(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	link := func(target, name string) {
		t.Helper()
		p := filepath.Join(b.rootfs, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, p); err != nil {
			t.Fatal(err)
		}
	}
	up := strings.Repeat("../", 30)
	link(outside, "absolute")
	link(up+outside, "relative")
	link("/proc/self/root"+outside, "magic")
	for _, name := range []string{"/absolute", "/relative", "/magic"} {
		r := b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("echo x > f; pwd"), Cwd: name + "/made"},
			bkexecutor.Mount{Dest: name + "/mnt", Src: steptest.Dir(t.TempDir())})
		if r.failure != nil && name != "/magic" {
			t.Errorf("%s: %v: %s", name, r.failure, r.err)
		}
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) != 0 {
		t.Errorf("outside there is %v %v", list, err)
	}
	if b.mode == "" || b.mode == "range" {
		b := newBench(t)
		if err := os.Symlink("/etc", filepath.Join(b.rootfs, "proc")); err != nil {
			t.Fatal(err)
		}
		r := b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("true")})
		var set *executor.SetupError
		if !errors.As(r.failure, &set) || set.Error() != "mount /proc: the image has a symlink there" {
			t.Errorf("/proc as a link: %v", r.failure)
		}
	}
}

// TestLeaks checks that nothing of this process can be reached from a step: no descriptor, no folder, no binary.
func TestLeaks(t *testing.T) {
	b := newBench(t)
	fd, err := syscall.Open("/", syscall.O_RDONLY|syscall.O_DIRECTORY, 0) // inherited by what is started
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if got := b.sh("ls /proc/self/fd | tr '\\n' ' '"); got != "0 1 2 3" {
		t.Errorf("descriptors %q", got)
	}
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := open()
	for n := range 20 {
		r := b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("pwd; ls"), Cwd: fmt.Sprintf("/proc/self/fd/%d", n)})
		if r.failure == nil {
			t.Errorf("cwd in descriptor %d: %q", n, r.out)
		}
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
	if err := os.Symlink("/proc/self/exe", filepath.Join(b.rootfs, "evil")); err != nil {
		t.Fatal(err)
	}
	r := b.run(t.Context(), bkexecutor.Meta{Args: []string{"/evil"}, Env: []string{evilVar + "=1"}})
	switch {
	case r.failure != nil && strings.Contains(r.failure.Error(), "no such file"):
		t.Log("this test binary is not static (CGO_ENABLED=0), so a step can't be made to execute it")
	case r.failure != nil || !strings.HasPrefix(r.out, "protected"):
		t.Errorf("our own binary from a step: %q %v", r.out, r.failure)
	}
}

// TestInsecure checks that --security=insecure lifts the restrictions that it should.
func TestInsecure(t *testing.T) {
	b := newBench(t)
	r := b.run(t.Context(), bkexecutor.Meta{SecurityMode: pb.SecurityMode_INSECURE, Args: steptest.Shell("mkdir /t && mount -t tmpfs x /t && grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2; grep -q 'CapAmb:.*00000000000000' /proc/self/status || echo ambient")})
	want := "0\n0\nambient\n"
	if b.mode == "single" {
		want = "0\n2\nambient\n" // chown is still answered
	}
	if r.failure != nil || r.out != want {
		t.Errorf("got %q %v: %s", r.out, r.failure, r.err)
	}
}

// TestRefused checks that what can't be done is said, and not dropped.
func TestRefused(t *testing.T) {
	b := newBench(t)
	for name, meta := range map[string]bkexecutor.Meta{
		"no command":   {},
		"CDI":          {Args: steptest.Shell("true"), CDIDevices: []*pb.CDIDevice{{Name: "x"}}},
		"network":      {Args: steptest.Shell("true"), NetMode: 99},
		"unknown user": {Args: steptest.Shell("true"), User: "nobody-knows"},
		"ulimit":       {Args: steptest.Shell("true"), Ulimit: []*pb.Ulimit{{Name: "nosuch", Soft: 1, Hard: 1}}},
	} {
		if r := b.run(t.Context(), meta); r.failure == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := b.tree(); got != "" {
		t.Errorf("left: %q", got)
	}
}
