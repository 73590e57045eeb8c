//go:build linux

package executor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
	"github.com/wherry-oci/wherry/build/userns"
)

// variables with which this binary starts itself again
const (
	modeVar   = "EXECUTOR_TEST_MODE"   // how steps run: see newBench
	engineVar = "EXECUTOR_TEST_ENGINE" // play an engine that is about to be killed: its root file system, ":", its folder, ":", what its step sleeps
)

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case executor.InitArg0:
		executor.Init()
	case userns.InitArg0:
		userns.Init()
	}
	if env(evilVar) != "" {
		playEvil()
	}
	if mode := env(modeVar); mode != "" {
		code, entered, err := userns.Enter(context.Background(), userns.Options{SingleID: mode == "single"})
		if err != nil {
			say(err)
			os.Exit(1)
		}
		if entered {
			os.Exit(code)
		}
		if mode == "single" {
			if err := userns.FakeOwnOwnership(); err != nil {
				say(err)
				os.Exit(1)
			}
		}
	}
	if given := strings.Split(env(engineVar), ":"); len(given) == 3 {
		playEngine(given[0], given[1], given[2])
	}
	os.Exit(m.Run())
}

// env, say and stdout are what the programs have that this binary plays.
func env(name string) string {
	return os.Getenv(name) //nolint:forbidigo // a program's own environment
}

func say(args ...any) {
	fmt.Println(args...) //nolint:forbidigo // a program's own output
}

func stdout() *os.File {
	return os.Stdout //nolint:forbidigo // a program's own output
}

// playEngine runs a step that does not end.
func playEngine(rootfs, root, mark string) {
	ex, err := executor.New(options(root))
	if err != nil {
		say(err)
		os.Exit(1)
	}
	meta := bkexecutor.Meta{Args: []string{"/bin/sh", "-c", "sleep " + mark + " & setsid sleep " + mark + " & echo up; sleep " + mark}, Cwd: "/", Env: []string{"PATH=/bin"}}
	_, _ = ex.Run(context.Background(), "", bkexecutor.Mount{Src: steptest.Dir(rootfs)}, nil, bkexecutor.ProcessInfo{Meta: meta, Stdout: stdout()}, nil)
	os.Exit(0)
}

// options are those for the mode in which this binary runs: "" is root, "hostpid" root that shares its pid
// namespace, "range" and "single" are the two kinds of a user namespace, "masked" is "range" where parts of the outer
// /proc are hidden.
func options(root string) executor.Options {
	mode := env(modeVar)
	procs, err := executor.ProcMountable()
	if err != nil || procs == (mode == "masked") {
		panic(fmt.Sprintf("a new procfs: %v %v", procs, err))
	}
	return executor.Options{
		Root:     root,
		Rootless: mode != "" && mode != "hostpid",
		SingleID: mode == "single",
		HostPID:  mode == "hostpid" || !procs,
		Networks: map[pb.NetMode]network.Provider{
			pb.NetMode_HOST:  network.NewHostProvider(),
			pb.NetMode_UNSET: network.NewHostProvider(),
			pb.NetMode_NONE:  network.NewNoneProvider(),
		},
	}
}

// bench is an executor and a root file system of busybox.
type bench struct {
	t      *testing.T
	exec   bkexecutor.Executor
	root   string // the executor's own folder
	rootfs string
	mode   string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("steps need root here; TestModes, run as root, covers unprivileged users")
	}
	root := filepath.Join(t.TempDir(), "executor")
	ex, err := executor.New(options(root))
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, exec: ex, root: root, rootfs: steptest.BusyboxRoot(t), mode: env(modeVar)}
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
	_, err := b.exec.Run(ctx, "", bkexecutor.Mount{Src: steptest.Dir(b.rootfs)}, mounts, bkexecutor.ProcessInfo{Meta: b.meta(meta), Stdout: &out, Stderr: &errOut}, nil)
	return result{out: out.String(), err: errOut.String(), failure: err}
}

func (b *bench) meta(meta bkexecutor.Meta) bkexecutor.Meta {
	if meta.Cwd == "" {
		meta.Cwd = "/"
	}
	if meta.Env == nil {
		meta.Env = []string{"PATH=/bin"}
	}
	meta.RemoveMountStubsRecursive = true
	return meta
}

// sh runs a script as root of the step, which has to succeed, and returns its output.
func (b *bench) sh(script string, mounts ...bkexecutor.Mount) string {
	b.t.Helper()
	r := b.run(b.t.Context(), bkexecutor.Meta{Args: steptest.Shell(script)}, mounts...)
	if r.failure != nil {
		b.t.Errorf("%s: %v: %s", script, r.failure, r.err)
	}
	return strings.TrimSpace(r.out)
}

// write makes a file in the root file system.
func (b *bench) write(name, content string) {
	b.t.Helper()
	steptest.WriteFile(b.t, b.rootfs, name, content)
}

// tree lists the root file system except for busybox.
func (b *bench) tree() string {
	b.t.Helper()
	return steptest.Tree(b.t, b.rootfs)
}
