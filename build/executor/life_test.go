//go:build linux

package executor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bkexecutor "github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// TestEnd checks exit codes and the errors of steps that can't start.
func TestEnd(t *testing.T) {
	b := newBench(t)
	b.write("etc/noexec", "")
	for _, tt := range []struct {
		name  string
		meta  bkexecutor.Meta
		code  int // -1: a SetupError
		text  string
		cause error
	}{
		{name: "zero", meta: bkexecutor.Meta{Args: steptest.Shell("true")}},
		{name: "code", meta: bkexecutor.Meta{Args: steptest.Shell("exit 3")}, code: 3},
		{name: "allowed code", meta: bkexecutor.Meta{Args: steptest.Shell("exit 3"), ValidExitCodes: []int{3}}},
		{name: "zero not allowed", meta: bkexecutor.Meta{Args: steptest.Shell("exit 4"), ValidExitCodes: []int{3}}, code: 4},
		{name: "signal", meta: bkexecutor.Meta{Args: steptest.Shell("sh -c 'kill -11 $$'; exit $?")}, code: 128 + 11},
		{name: "no such program", meta: bkexecutor.Meta{Args: []string{"/nope"}}, code: -1, text: `exec "/nope": no such file or directory`, cause: fs.ErrNotExist},
		{name: "not in PATH", meta: bkexecutor.Meta{Args: []string{"nope"}}, code: -1, text: `exec "nope": not found in $PATH`, cause: fs.ErrNotExist},
		{name: "not executable", meta: bkexecutor.Meta{Args: []string{"/etc/noexec"}}, code: -1, text: `exec "/etc/noexec": permission denied`, cause: fs.ErrPermission},
		{name: "a folder", meta: bkexecutor.Meta{Args: []string{"/etc"}}, code: -1, text: `exec "/etc": is a directory`},
		{name: "folder is a file", meta: bkexecutor.Meta{Args: steptest.Shell("true"), Cwd: "/etc/noexec"}, code: -1, text: `make working directory "/etc/noexec": not a directory`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := b.run(t.Context(), tt.meta)
			var exit *gatewayapi.ExitError
			var set *executor.SetupError
			switch {
			case tt.code == 0 && r.failure != nil:
				t.Errorf("%v: %s", r.failure, r.err)
			case tt.code > 0 && (!errors.As(r.failure, &exit) || int(exit.ExitCode) != tt.code):
				t.Errorf("got %v, want exit code %d", r.failure, tt.code)
			case tt.code < 0 && !errors.As(r.failure, &set):
				t.Errorf("got %v, want a SetupError", r.failure)
			case tt.code < 0 && (!strings.HasPrefix(r.failure.Error(), tt.text) || tt.cause != nil && !errors.Is(r.failure, tt.cause)):
				t.Errorf("got %v, want %s", r.failure, tt.text)
			}
		})
	}
	left, err := os.ReadDir(b.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if e.IsDir() {
			t.Errorf("bundle %s is left", e.Name())
		}
	}
}

// TestChildren checks that nobody waits for a step's children, and that they are gone when it has ended.
func TestChildren(t *testing.T) {
	b := newBench(t)
	begin := time.Now()
	mark := steptest.Mark(9)
	out := b.sh("sleep " + mark + " & (setsid sleep " + mark + " &) ; yes | head -c 300000 | tail -c 5; echo done")
	if !strings.HasSuffix(out, "y\ndone") {
		t.Errorf("output: %q", out)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the step's children were waited for: %v", d)
	}
	if p := steptest.FindProcess(mark); p != "" {
		t.Errorf("process %s has outlived the step", p)
	}
	// All output arrives, also of a step that ends in the middle of it.
	if out := b.sh("yes 0123456789 | head -c 3000000"); len(out) < 2999990 {
		t.Errorf("%d bytes of output", len(out))
	}
}

// TestCancel checks that a cancelled step ends at once, with its children, and says why.
func TestCancel(t *testing.T) {
	b := newBench(t)
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan struct{})
	go func() {
		<-started
		time.Sleep(100 * time.Millisecond)
		cancel(cause)
	}()
	begin := time.Now()
	var out steptest.Writer
	mark := steptest.Mark(8)
	meta := b.meta(bkexecutor.Meta{Args: steptest.Shell("trap '' TERM INT; setsid sleep " + mark + " & sleep " + mark)})
	_, err := b.exec.Run(ctx, "", bkexecutor.Mount{Src: steptest.Dir(b.rootfs)}, nil, bkexecutor.ProcessInfo{Meta: meta, Stdout: &out}, started)
	var exit *gatewayapi.ExitError
	if !errors.Is(err, cause) || !errors.As(err, &exit) || exit.ExitCode != 137 {
		t.Errorf("got %v", err)
	}
	if time.Since(begin) > 5*time.Second || !steptest.Gone(mark) {
		t.Error("the step goes on")
	}
	// Cancelled before it begins.
	if r := b.run(ctx, bkexecutor.Meta{Args: steptest.Shell("true")}); !errors.Is(r.failure, cause) {
		t.Errorf("got %v", r.failure)
	}
}

// TestStreams checks stdin, signals and the start signal.
func TestStreams(t *testing.T) {
	b := newBench(t)
	var out steptest.Writer
	signals, started := make(chan syscall.Signal, 1), make(chan struct{})
	in, inW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		meta := b.meta(bkexecutor.Meta{Args: steptest.Shell("trap 'echo got it; exit 5' USR1; read x; echo read $x; while :; do sleep 0.05; done")})
		_, err := b.exec.Run(t.Context(), "", bkexecutor.Mount{Src: steptest.Dir(b.rootfs)}, nil, bkexecutor.ProcessInfo{Meta: meta, Stdin: in, Stdout: &out, Signal: signals}, started)
		done <- err
	}()
	<-started
	if _, err := inW.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "read hello") })
	signals <- syscall.SIGUSR1
	var exit *gatewayapi.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode != 5 {
		t.Errorf("got %v: %s", err, out.String())
	}
	if !strings.Contains(out.String(), "got it") {
		t.Errorf("output: %q", out.String())
	}
}

// TestTerminalAndExec checks a step on a terminal, its size, and a second process in a running step.
func TestTerminalAndExec(t *testing.T) {
	b := newBench(t)
	var out steptest.Writer
	resize, started := make(chan bkexecutor.WinSize, 1), make(chan struct{})
	in, inW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		meta := b.meta(bkexecutor.Meta{Tty: true, Env: []string{"PATH=/bin", "TERM=xterm", "A=1"}, Args: steptest.Shell("tty; test -t 0 -a -t 1 -a -t 2 && echo three; read x; stty size; read x; exit 6")})
		_, err := b.exec.Run(t.Context(), "first", bkexecutor.Mount{Src: steptest.Dir(b.rootfs)}, nil, bkexecutor.ProcessInfo{Meta: meta, Stdin: in, Stdout: &out, Resize: resize}, started)
		done <- err
	}()
	<-started
	steptest.Eventually(t, func() bool {
		return strings.Contains(out.String(), "/dev/pts/0") && strings.Contains(out.String(), "three")
	})
	resize <- bkexecutor.WinSize{Rows: 33, Cols: 44}
	time.Sleep(50 * time.Millisecond)
	if _, err := inW.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "33 44") })

	second := func(meta bkexecutor.Meta) (string, error) {
		var out steptest.Writer
		err := b.exec.Exec(t.Context(), "first", bkexecutor.ProcessInfo{Meta: meta, Stdout: &out})
		return out.String(), err
	}
	got, err := second(bkexecutor.Meta{Args: steptest.Shell("echo $A; hostname; readlink /proc/1/exe; grep -c ^CapEff:.*00000000a80425fb /proc/self/status; exit 7")})
	var exit *gatewayapi.ExitError
	if !errors.As(err, &exit) || exit.ExitCode != 7 {
		t.Errorf("exec: %v", err)
	}
	if b.mode != "hostpid" && b.mode != "masked" && got != "1\nbuildkitsandbox\n/bin/busybox\n1\n" {
		t.Errorf("exec: %q", got)
	}
	if got, err := second(bkexecutor.Meta{Tty: true, Args: steptest.Shell("tty")}); err != nil || !strings.Contains(got, "/dev/pts/1") {
		t.Errorf("exec on a terminal: %q %v", got, err)
	}
	mark := steptest.Mark(7)
	hanging := make(chan error, 1)
	go func() {
		_, err := second(bkexecutor.Meta{Args: steptest.Shell("(setsid sleep " + mark + "&); sleep " + mark)})
		hanging <- err
	}()
	steptest.Eventually(t, func() bool { return steptest.FindProcess(mark) != "" })
	if _, err := inW.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode != 6 {
		t.Errorf("first process: %v: %s", err, out.String())
	}
	if err := <-hanging; err == nil || !steptest.Gone(mark) {
		t.Errorf("a second process has outlived the step: %v", err)
	}
	if _, err := second(bkexecutor.Meta{Args: steptest.Shell("true")}); !errors.Is(err, executor.ErrNotRunning) {
		t.Errorf("exec after the end: %v", err)
	}
}

// TestKilledEngine checks that nothing of a step is left when the engine is killed.
func TestKilledEngine(t *testing.T) {
	b := newBench(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	root := t.TempDir()
	mark := steptest.Mark(6)
	cmd.Env = append(os.Environ(), engineVar+"="+b.rootfs+":"+root+":"+mark)
	var out steptest.Writer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "up") && steptest.FindProcess(mark) != "" })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !steptest.Gone(mark) {
		t.Errorf("process %s of the step is left", steptest.FindProcess(mark))
	}
	// Started by root it has mounted in our namespace; a real one would have had its own, as those of users have here.
	left, err := filepath.Glob(filepath.Join(root, "*", "rootfs"))
	if err != nil || len(left) != 1 {
		t.Fatalf("bundles: %q %v", left, err)
	}
	if err := syscall.Unmount(left[0], 0); err != nil && !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	if _, err := executor.New(options(root)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(left[0])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the next executor has left the bundle: %v", err)
	}
}

// TestModes runs all other tests again: sharing the pid namespace, and as an unprivileged user in a user namespace
// with a range of ids and with one.
func TestModes(t *testing.T) {
	if env(modeVar) != "" {
		t.Skip("this is one of the modes")
	}
	if os.Geteuid() != 0 {
		t.Skip("making another user needs root")
	}
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("the steps need a static busybox (package busybox-static)")
	}
	for _, mode := range []string{"hostpid", "range", "single", "masked"} {
		t.Run(mode, func(t *testing.T) {
			args := []string{"-test.v", "-test.count=1", "-test.skip=TestModes"}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
			cmd.Dir = "/"
			cmd.Env = []string{modeVar + "=" + mode, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
			if mode != "hostpid" {
				asUser(t, cmd)
			}
			if mode == "masked" {
				maskProc(t, cmd)
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if !bytes.Contains(out, []byte("--- PASS: TestProcess")) {
				t.Errorf("nothing ran:\n%s", out)
			}
		})
	}
}

// maskProc starts cmd where a part of /proc is hidden, as it is in every container.
func maskProc(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	for _, tool := range []string{"unshare", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s (package util-linux) is not installed", tool)
		}
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = self.Close() })
	c := cmd.SysProcAttr.Credential
	script := fmt.Sprintf("mount --bind /dev/null /proc/keys && exec setpriv --reuid %d --regid %d --clear-groups /proc/self/fd/3 \"$@\"", c.Uid, c.Gid)
	cmd.SysProcAttr, cmd.ExtraFiles = nil, []*os.File{self}
	cmd.Path, cmd.Args = "/usr/bin/unshare", append([]string{"unshare", "--mount", "sh", "-c", script, "sh"}, cmd.Args[1:]...)
}

// asUser makes cmd run as a new user with subordinate ids and a folder for temporary files.
func asUser(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("newuidmap (package uidmap) is not installed")
	}
	name := "wx" + strconv.FormatInt(time.Now().UnixNano()&0xffffffff, 16)
	for _, args := range [][]string{{"useradd", "-M", name}, {"usermod", "-v", "700000-765535", "-w", "700000-765535", name}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", args[0], err, out)
		}
	}
	tmp := t.TempDir()
	if err := os.Chmod(filepath.Dir(tmp), 0o755); err != nil { // the other user has to reach it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "userdel", name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v: %s", err, out)
		}
	})
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(tmp, uid, gid); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
