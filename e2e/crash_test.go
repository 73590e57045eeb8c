package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// sweepVariable, when set, has crashpoints try every point, however long that takes.
const sweepVariable = "WHERRY_CRASH_SWEEP"

// cmdCrashpoints: crashpoints BUDGET PROGRAM ARG... kills a program before each change that it makes to the store, one
// after the other, as many as there is time for. The store must be whole every time, with the names it had or those it
// was to have; and what was begun must succeed the next time. In the end the store is as the program leaves it.
func cmdCrashpoints(ts *testscript.TestScript, _ bool, args []string) {
	budget, err := time.ParseDuration(args[0])
	ts.Check(err)
	if os.Getenv(sweepVariable) != "" {
		budget = time.Hour
	}
	c := &crash{ts: ts, args: args[1:], store: ts.Getenv("STORE"), copy: filepath.Join(ts.Getenv("STATE"), "crash")}
	c.reset()
	c.was = c.names()
	count := 0
	c.reset()
	if code := c.trace(func(change) bool { count++; return true }); code != 0 {
		ts.Fatalf("exit code %d", code)
	}
	c.is = c.names()
	c.mustBeWhole("without a crash")
	start, done := time.Now(), 0
	for _, n := range rand.Perm(count) {
		if time.Since(start) > budget {
			break
		}
		c.crashAt(n)
		done++
	}
	fmt.Fprintf(os.Stderr, "crashpoints: %d of %d: %s\n", done, count, strings.Join(c.args, " "))
	ts.Check(os.RemoveAll(c.copy))
	expect(ts, false, run(ts, c.args))
}

// cmdCrashfile: crashfile FILE PROGRAM ARG... kills a program before each change that it makes in the folder of FILE,
// which it is to write. The file must be there as it was, or whole. The folder must be FILE's alone.
func cmdCrashfile(ts *testscript.TestScript, _ bool, args []string) {
	file := ts.MkAbs(args[0])
	dir := filepath.Dir(file)
	c := &crash{ts: ts, args: args[1:], copy: ts.Getenv("STORE")}
	begin := func() {
		ts.Check(os.RemoveAll(dir))
		ts.Check(os.MkdirAll(dir, 0o755))
		ts.Check(os.WriteFile(file, []byte("old"), 0o600))
	}
	begin()
	count := 0
	if code := c.traceBelow(dir, func(change) bool { count++; return true }); code != 0 {
		ts.Fatalf("exit code %d", code)
	}
	done, err := os.ReadFile(file)
	ts.Check(err)
	for n := range count {
		begin()
		left, at := n, change{}
		c.traceBelow(dir, func(ch change) bool { left--; at = ch; return left >= 0 })
		is, err := os.ReadFile(file)
		ts.Check(err)
		if string(is) != "old" && !bytes.Equal(is, done) {
			ts.Fatalf("killed before change %d (%s): %d bytes are in the file", n+1, at, len(is))
		}
	}
	fmt.Fprintf(os.Stderr, "crashfile: %d: %s\n", count, strings.Join(c.args, " "))
	begin()
	expect(ts, false, run(ts, c.args))
}

type crash struct {
	ts          *testscript.TestScript
	args        []string
	store, copy string
	was, is     map[string]string // names before and after
}

// reset makes the copy what the store is.
func (c *crash) reset() {
	c.ts.Check(os.RemoveAll(c.copy))
	if _, err := os.Stat(c.store); err == nil { // the first command makes it
		c.ts.Check(command(context.Background(), "cp", "-a", c.store, c.copy))
	}
}

// names of the copy; none if it is no store yet.
func (c *crash) names() map[string]string {
	if _, err := os.Stat(filepath.Join(c.copy, "index.json")); err != nil {
		return map[string]string{}
	}
	return namesOf(c.ts, c.copy)
}

// command is the program on the copy.
func (c *crash) command(args ...string) (cmd *exec.Cmd, output *os.File) {
	output, err := os.Create(filepath.Join(c.ts.Getenv("STATE"), "crash-output"))
	c.ts.Check(err)
	cmd = prepare(context.Background(), c.ts, args)
	cmd.Env = append(cmd.Env, "WHERRY_STORE="+c.copy)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Cancel, cmd.WaitDelay = nil, output, output, nil, 0
	return cmd, output
}

func (c *crash) trace(before func(change) bool) (code int) { return c.traceBelow(c.copy, before) }

func (c *crash) traceBelow(dir string, before func(change) bool) (code int) {
	cmd, output := c.command(c.args...)
	defer output.Close()
	t := &tracer{dir: dir, before: before}
	code, err := t.run(cmd)
	c.mayTrace(err)
	return code
}

// mayTrace skips the story where nobody may trace what he has started.
func (c *crash) mayTrace(err error) {
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") != "true" {
		story := storyOf(c.ts)
		story.suite.skips.add(c.ts.Name(), "needs the right to trace its own processes")
		story.t.Skip()
	}
	c.ts.Check(err)
}

// crashAt kills the program before its n-th change.
func (c *crash) crashAt(n int) {
	c.reset()
	var at change
	count := 0
	c.trace(func(ch change) bool {
		if count++; count > n {
			at = ch
			return false
		}
		return true
	})
	when := fmt.Sprintf("killed before change %d (%s)", n+1, at)
	c.mustBeWhole(when)
	names := c.names()
	switch {
	case maps.Equal(names, c.is):
		return
	case !maps.Equal(names, c.was):
		c.ts.Fatalf("%s: the store has neither the old names nor the new ones: %v", when, names)
	}
	c.again(when, c.args...)
	c.mustBeWhole(when + ", done again")
	if names := c.names(); !maps.Equal(names, c.is) {
		c.ts.Fatalf("%s, done again: the store has the names %v", when, names)
	}
}

func (c *crash) mustBeWhole(when string) { c.again(when, "wherry", "check", "-q") }

// again runs a program that must succeed.
func (c *crash) again(when string, args ...string) {
	cmd, output := c.command(args...)
	defer output.Close()
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(output.Name())
		c.ts.Fatalf("%s: %v: %v\n%s", when, args, err, said)
	}
}

// cmdDurable: durable PROGRAM ARG... runs a program on the store and requires that nothing it does relies on what is not
// on the disk yet, as seen in the order of its system calls.
func cmdDurable(ts *testscript.TestScript, _ bool, args []string) {
	c := &crash{ts: ts, args: args, copy: ts.Getenv("STORE")}
	cmd, output := c.command(args...)
	defer output.Close()
	o := newOrder(c.copy)
	t := &tracer{dir: c.copy, before: o.before, after: o.after}
	code, err := t.run(cmd)
	c.mayTrace(err)
	if code != 0 {
		said, _ := os.ReadFile(output.Name())
		ts.Fatalf("exit code %d: %s", code, said)
	}
	if faults := o.end(); len(faults) > 0 {
		ts.Fatalf("%v:\n%s", args, strings.Join(faults, "\n"))
	}
}

// cmdFullpoints: fullpoints PROGRAM ARG... runs a program on a disk that has no room, room for one page, for two, and
// so on until it succeeds; then the same with files. Each time before it must say that the disk is full, leave a store
// that is whole and has the same names, and succeed when there is room. In the end the store is as the program leaves it.
func cmdFullpoints(ts *testscript.TestScript, _ bool, args []string) {
	c := &crash{ts: ts, args: args, store: ts.Getenv("STORE")}
	disk := filepath.Join(ts.Getenv("STATE"), "disk")
	c.copy = filepath.Join(disk, "store")
	ts.Check(os.MkdirAll(disk, 0o755))
	for _, limit := range []string{"nr_blocks", "nr_inodes"} {
		room := 0
		for ; !c.fillAt(disk, limit, room); room++ {
			if room == 2000 {
				ts.Fatalf("it never succeeds")
			}
		}
		fmt.Fprintf(os.Stderr, "fullpoints: %d of %s: %s\n", room, limit, strings.Join(args, " "))
	}
	expect(ts, false, run(ts, args))
}

// fillAt runs the program with room for so many pages or files, and reports whether that was enough.
func (c *crash) fillAt(disk, limit string, room int) (enough bool) {
	c.ts.Check(unix.Mount("tmpfs", disk, "tmpfs", 0, ""))
	defer func() { c.ts.Check(unix.Unmount(disk, unix.MNT_DETACH)) }()
	c.reset()
	c.was = c.names()
	var used unix.Statfs_t
	c.ts.Check(unix.Statfs(disk, &used))
	most := used.Blocks - used.Bfree
	if limit == "nr_inodes" {
		most = used.Files - used.Ffree
	}
	c.ts.Check(unix.Mount("", disk, "", unix.MS_REMOUNT, fmt.Sprintf("%s=%d", limit, int(most)+room)))
	cmd, output := c.command(c.args...)
	defer output.Close()
	failed := cmd.Run()
	said, err := os.ReadFile(output.Name())
	c.ts.Check(err)
	c.ts.Check(unix.Mount("", disk, "", unix.MS_REMOUNT, fmt.Sprintf("%s=%d", limit, most+1<<20)))
	when := fmt.Sprintf("with %d of %s left", room, limit)
	c.mustBeWhole(when)
	if failed == nil {
		return true
	}
	if !bytes.Contains(said, []byte("no space left on device")) {
		c.ts.Fatalf("%s: %v: %s", when, failed, said)
	}
	if names := c.names(); !maps.Equal(names, c.was) {
		c.ts.Fatalf("%s: the store has the names %v", when, names)
	}
	c.again(when+", with room again", c.args...)
	c.mustBeWhole(when + ", with room again")
	return false
}
