//go:build linux

package executor_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bkexecutor "github.com/moby/buildkit/executor"

	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// TestRaces runs steps against one that changes, all the time, a folder that they share with it, as two steps with one
// cache mount do: names that are folders become links out of the root file system, and back.
func TestRaces(t *testing.T) {
	b := newBench(t)
	outside, shared := t.TempDir(), t.TempDir()
	for _, name := range []string{"mnt", "sub"} {
		if err := os.MkdirAll(filepath.Join(outside, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{shared, outside} {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	defer swapInBackground(t, b, shared, outside)()

	rounds := func() int64 {
		info, err := os.Stat(filepath.Join(shared, "rounds"))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for n := 0; n < 30 || rounds() < 30 && n < 3000; n++ { // a busy machine may have run all before the other one is scheduled
		r := b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("cat /c/a/secret /sub/secret /c/a/mnt/secret 2>/dev/null; echo x > /c/a/mnt/written; true"), Cwd: "/c/a/made/" + strconv.Itoa(n)},
			bkexecutor.Mount{Dest: "/c", Src: steptest.Dir(shared)},
			bkexecutor.Mount{Dest: "/c/a/mnt", Src: steptest.Dir(t.TempDir())},
			bkexecutor.Mount{Dest: "/sub", Src: steptest.Dir(shared), Selector: "a"},
		)
		if strings.Contains(r.out, "of the host") {
			t.Fatalf("run %d: the step read a file of the host", n)
		}
	}
	if n := rounds(); n < 30 {
		t.Errorf("there was hardly a race: %d rounds", n)
	}
	want := "mnt secret sub"
	var got []string
	err := filepath.WalkDir(outside, func(path string, _ os.DirEntry, err error) error {
		if path != outside {
			got = append(got, strings.TrimPrefix(path, outside+"/"))
		}
		return err
	})
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("outside there is %q, %v; want %q", got, err, want)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), b.rootfs) || strings.Contains(string(mounts), outside) {
		t.Errorf("mounts are left: %s %v", mounts, err)
	}
}

// swapInBackground runs the step that swaps, until the function that it returns is called.
func swapInBackground(t *testing.T, b *bench, shared, outside string) func() {
	t.Helper()
	hostile := &bench{t: t, exec: b.exec, rootfs: steptest.BusyboxRoot(t), mode: b.mode}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		script := "cd /c; mkdir -p a/mnt; ln -s " + outside + " l; while :; do mv -T a b; mv -T l a; mv -T a l; mv -T b a; echo >> rounds; done"
		hostile.run(ctx, bkexecutor.Meta{Args: steptest.Shell(script)}, bkexecutor.Mount{Dest: "/c", Src: steptest.Dir(shared)})
	}()
	for range 500 { // until it is at work
		if _, err := os.Lstat(filepath.Join(shared, "l")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() { cancel(); <-done }
}

// TestTargetsAreSwapped has a step replace the folder above a mount target by a link to a folder outside, whose own
// folder of that name must not be taken for a target that is to be removed.
func TestTargetsAreSwapped(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(outside, "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.sh("mv /a /b && ln -s "+outside+" /a", bkexecutor.Mount{Dest: "/a/mnt", Src: steptest.Dir(t.TempDir())})
	if _, err := os.Stat(filepath.Join(outside, "mnt")); err != nil {
		t.Errorf("a folder outside is gone: %v", err)
	}
}

// TestManyProcesses checks that a step that makes processes faster than anybody could kill them is ended whole.
func TestManyProcesses(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	mark := steptest.Mark(7)
	started := make(chan struct{})
	go func() {
		<-started
		for steptest.FindProcess(mark) == "" && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	// A hundred loops in sessions of their own, each of which makes ten processes and goes on for ever.
	loop := "trap '' TERM HUP; n=0; while :; do [ $n -ge 10 ] || sleep " + mark + " & n=$((n+1)); sleep 0.05; done"
	meta := b.meta(bkexecutor.Meta{
		Args: steptest.Shell(`i=0; while [ $i -lt 100 ]; do setsid sh -c "$LOOP" & i=$((i+1)); done; sleep 1000`),
		Env:  []string{"PATH=/bin", "LOOP=" + loop},
	})
	if _, err := b.exec.Run(ctx, "", bkexecutor.Mount{Src: steptest.Dir(b.rootfs)}, nil, bkexecutor.ProcessInfo{Meta: meta}, started); err == nil {
		t.Error("the step came to an end by itself")
	}
	if !steptest.Gone(mark) {
		t.Error("processes have outlived their step")
	}
}
