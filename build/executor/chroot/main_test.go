package chroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// Variables with which this binary starts itself again.
const (
	outerVar  = "CHROOT_TEST_OUTER"  // "docker", "nomknod", "nochroot" or "nolandlock": give up what such a container lacks, then run the tests
	innerVar  = "CHROOT_TEST_INNER"  // that has been done
	engineVar = "CHROOT_TEST_ENGINE" // play an engine that is about to be killed
	playVar   = "CHROOT_TEST_PLAY"   // be a program in a step: see play
)

func TestMain(m *testing.M) {
	if os.Args[0] == InitArg0 {
		Init()
	}
	switch {
	case env(playVar) != "":
		os.Exit(play(strings.Fields(env(playVar))))
	case env(outerVar) != "":
		fmt.Fprintln(os.Stderr, becomeContainer(env(outerVar))) //nolint:forbidigo // a program of its own
		os.Exit(1)
	case env(engineVar) != "":
		playEngine(env(engineVar))
	}
	os.Exit(m.Run())
}

// env and stdout are what a program has that this binary plays.
func env(name string) string { return os.Getenv(name) } //nolint:forbidigo // a program's own environment

func stdout() *os.File { return os.Stdout } //nolint:forbidigo // a program's own output

// dockerCapabilities are what docker gives a container.
func dockerCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// becomeContainer takes the capabilities and the seccomp profile that docker gives a container by default, and starts
// this program again with those. It returns only on failure.
func becomeContainer(kind string) error {
	runtime.LockOSThread()
	caps := dockerCapabilities()
	profile, err := mobyseccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		return err
	}
	filter, err := seccomp.Compile(profile, false)
	if err != nil {
		return err
	}
	sets := step.NewCapSets(&specs.LinuxCapabilities{Bounding: caps})
	if kind == "nomknod" {
		sets.Bounding &^= 1 << unix.CAP_MKNOD
	}
	if kind == "nochroot" {
		sets.Bounding &^= 1 << unix.CAP_SYS_CHROOT
	}
	if err := step.DropBounding(sets.Bounding); err != nil {
		return err
	}
	if err := seccomp.Load(filter, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW); err != nil {
		return err
	}
	if err := errors.Join(os.Unsetenv(outerVar), os.Setenv(innerVar, kind)); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

// TestContainers runs all other tests in what is like a container of docker's, and some in one without CAP_MKNOD, one
// without CAP_SYS_CHROOT, and one on a kernel without Landlock.
func TestContainers(t *testing.T) {
	if env(innerVar) != "" {
		t.Skip("this is one of them")
	}
	if os.Geteuid() != 0 {
		t.Skip("the root of a container is played by root")
	}
	for kind, tests := range map[string]string{"docker": ".", "nomknod": "TestSight|TestTerminal", "nolandlock": "TestSight|TestAttack|TestOtherABI", "nochroot": "TestPossible"} {
		t.Run(kind, func(t *testing.T) {
			args := []string{"-test.v", "-test.count=1", "-test.skip=TestContainers", "-test.run=" + tests}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
			cmd.Env = append(os.Environ(), outerVar+"="+kind)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if !strings.Contains(string(out), "--- PASS: Test") {
				t.Errorf("nothing ran:\n%s", out)
			}
		})
	}
}

// bench is an executor and a root file system of busybox, in a container.
type bench struct {
	t      testing.TB
	exec   bkexecutor.Executor
	root   string // the executor's own folder
	rootfs string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if env(innerVar) == "" {
		t.Skip("TestContainers runs this where it belongs")
	}
	if err := unix.Mount("x", "/mnt", "tmpfs", 0, ""); !errors.Is(err, unix.EPERM) {
		t.Fatalf("mount: %v", err)
	}
	if err := unix.Unshare(unix.CLONE_FS); !errors.Is(err, unix.EPERM) {
		t.Fatalf("unshare: %v", err)
	}
	root := filepath.Join(t.TempDir(), "executor")
	ex, err := New(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if env(innerVar) == "nolandlock" {
		ex.(*chrootExecutor).abi = 0
	}
	return &bench{t: t, exec: ex, root: root, rootfs: steptest.BusyboxRoot(t)}
}

// result is what a step left.
type result struct {
	out, err string
	failure  error
}

// run executes a step on the bench's root file system. The zero Meta has a PATH and the root as its folder.
func (b *bench) run(ctx context.Context, meta bkexecutor.Meta, mounts ...bkexecutor.Mount) result {
	b.t.Helper()
	var out, errOut steptest.Writer
	_, err := b.exec.Run(ctx, "", b.mount(), mounts, bkexecutor.ProcessInfo{Meta: b.meta(meta), Stdout: &out, Stderr: &errOut}, nil)
	return result{out: out.String(), err: errOut.String(), failure: err}
}

func (b *bench) mount() bkexecutor.Mount { return bkexecutor.Mount{Src: steptest.Dir(b.rootfs)} }

func (b *bench) meta(meta bkexecutor.Meta) bkexecutor.Meta {
	if meta.Cwd == "" {
		meta.Cwd = "/"
	}
	if meta.Env == nil {
		meta.Env = []string{"PATH=/bin"}
	}
	return meta
}

// sh runs a script as root of the step, which has to succeed, and returns its output.
func (b *bench) sh(script string, mounts ...bkexecutor.Mount) string {
	b.t.Helper()
	r := b.run(context.Background(), bkexecutor.Meta{Args: steptest.Shell(script)}, mounts...)
	if r.failure != nil {
		b.t.Errorf("%s: %v: %s", script, r.failure, r.err)
	}
	return strings.TrimSpace(r.out)
}

// play runs this binary as root of a step, which has to succeed, and returns its output.
func (b *bench) play(what string, mounts ...bkexecutor.Mount) string {
	b.t.Helper()
	program := filepath.Join(b.rootfs, "program")
	if !exists(program) {
		data, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(program, data, 0o755)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	r := b.run(context.Background(), bkexecutor.Meta{Args: []string{"/program"}, Env: []string{playVar + "=" + what}}, mounts...)
	if r.failure != nil {
		b.t.Errorf("%s: %v: %s", what, r.failure, r.err)
	}
	return strings.TrimSpace(r.out)
}

// write makes a file in the root file system.
func (b *bench) write(name, content string) {
	b.t.Helper()
	steptest.WriteFile(b.t, b.rootfs, name, content)
}

// tree lists the root file system except for busybox, and fails if the executor has left something of its own.
func (b *bench) tree() string {
	b.t.Helper()
	out := steptest.Tree(b.t, b.rootfs)
	left, err := os.ReadDir(b.root)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, d := range left {
		if d.IsDir() {
			b.t.Errorf("%s is left by a step", d.Name())
		}
	}
	return out
}

// playEngine runs a step that does not end: root file system, folder of the executor, folder of a cache.
func playEngine(where string) {
	parts := strings.Split(where, ":")
	ex, err := New(Options{Root: parts[1]})
	if err == nil {
		meta := bkexecutor.Meta{Args: steptest.Shell("echo new > /cache/f; sleep 1000 & setsid sleep 1000 & echo up; sleep 1000"), Cwd: "/", Env: []string{"PATH=/bin"}}
		mounts := []bkexecutor.Mount{{Dest: "/cache", Src: steptest.Dir(parts[2])}, {Dest: "/run/secrets/s", Src: secretSource{"engine's secret", 0o400}}}
		_, err = ex.Run(context.Background(), "", bkexecutor.Mount{Src: steptest.Dir(parts[0])}, mounts, bkexecutor.ProcessInfo{Meta: meta, Stdout: stdout()}, nil)
	}
	fmt.Fprintln(stdout(), err)
	os.Exit(0)
}
