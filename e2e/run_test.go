package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// stepLimit ends a command that hangs; none takes nearly as long.
const stepLimit = 90 * time.Second

// prepare makes a command of "[as USER|contained FLAG...] PROGRAM ARG... [<FILE]" in the script's folder and environment.
func prepare(ctx context.Context, ts *testscript.TestScript, args []string) *exec.Cmd {
	env := environment(ts)
	var credential *syscall.Credential
	var within *container
	if len(args) > 1 && args[0] == "contained" {
		var err error
		within, args, err = readContainer(args[1:])
		ts.Check(err)
		if within.who.uid != 0 && !within.image {
			ts.Check(within.who.makeHome(ts.Getenv("STATE")))
			env = append(env, within.who.environment(ts.Getenv("STATE"))...)
		}
	}
	if len(args) > 2 && args[0] == "as" {
		who, ok := storyOf(ts).suite.accounts[args[1]]
		if !ok {
			ts.Fatalf("no user %q; does the story say \"need root\"?", args[1])
		}
		ts.Check(who.makeHome(ts.Getenv("STATE")))
		env, credential = append(env, who.environment(ts.Getenv("STATE"))...), who.credential()
		args = args[2:]
	}
	var stdin io.Reader
	if last := args[len(args)-1]; strings.HasPrefix(last, "<") && len(last) > 1 {
		stdin = strings.NewReader(ts.ReadFile(last[1:]))
		args = args[:len(args)-1]
	}
	program := args[0] // in a container runc looks for it
	if within == nil {
		program = lookPath(ts, program)
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Dir, cmd.Stdin, cmd.Env = ts.MkAbs("."), stdin, env
	// A group of its own, so that a kill reaches everything it started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if within != nil {
		within.inStory(ctx, ts, cmd)
	}
	return cmd
}

// environment is the script's, as far as commands care for it.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for _, key := range []string{
		"PATH", "HOME", "TMPDIR", "WORK", "STATE", "WHERRY_STORE", "STORE", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
		"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "WHERRY_ISOLATION", "SECRET", "OTEL_EXPORTER_OTLP_ENDPOINT", "TRACEPARENT", "SOURCE_DATE_EPOCH", "TERM", "LANG",
	} {
		if value := ts.Getenv(key); value != "" {
			env = append(env, key+"="+value)
		}
	}
	return env
}

func lookPath(ts *testscript.TestScript, program string) string {
	if strings.Contains(program, "/") {
		return ts.MkAbs(program)
	}
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		file := filepath.Join(dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file
		}
	}
	ts.Fatalf("%s is not on the PATH", program)
	return ""
}

// run executes args, shows its output to the script and returns its exit code.
func run(ts *testscript.TestScript, args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	cmd := prepare(ctx, ts, args)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	return exitCode(ctx, ts, cmd.Run())
}

func exitCode(ctx context.Context, ts *testscript.TestScript, err error) int {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		ts.Fatalf("still running after %v", stepLimit)
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// cmdAs: [!] as USER PROGRAM ARG... runs a program with another user's rights, home and environment.
func cmdAs(ts *testscript.TestScript, neg bool, args []string) {
	expect(ts, neg, run(ts, append([]string{"as"}, args...)))
}

// cmdContained: [!] contained [FLAG...] PROGRAM ARG... runs a program as in a default container of docker's: see container.
func cmdContained(ts *testscript.TestScript, neg bool, args []string) {
	expect(ts, neg, run(ts, append([]string{"contained"}, args...)))
}

func expect(ts *testscript.TestScript, neg bool, code int) {
	if (code != 0) != neg {
		ts.Fatalf("exit code %d", code)
	}
}

// cmdCode: code N [as USER] PROGRAM ARG... requires an exit code.
func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if code := run(ts, args[1:]); code != want {
		ts.Fatalf("exit code %d, not %d", code, want)
	}
}

// cmdRefused: refused [-code=N] [as USER] PROGRAM ARG... is how every failure has to look: exit code 1 (or N),
// nothing on stdout, one line "wherry: ..." on stderr that no "hint:" repeats, and a store that is as it was.
func cmdRefused(ts *testscript.TestScript, _ bool, args []string) {
	want := 1
	if text, ok := strings.CutPrefix(args[0], "-code="); ok {
		want, _ = strconv.Atoi(text)
		args = args[1:]
	}
	store := ts.Getenv("WHERRY_STORE")
	if len(args) > 2 && args[0] == "as" {
		store = storyOf(ts).suite.accounts[args[1]].store(ts.Getenv("STATE"))
	}
	seal := sealOf
	if slices.Contains(args, "pull") {
		seal = entriesOf // a pull that broke off leaves what it got for the next one to go on with
	}
	before := seal(store)
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := prepare(ctx, ts, args)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(ts.Stdout(), &out), io.MultiWriter(ts.Stderr(), &errs)
	code := exitCode(ctx, ts, cmd.Run())
	switch lines := errorLine.FindAllString(errs.String(), -1); {
	case code != want:
		ts.Fatalf("exit code %d, not %d", code, want)
	case out.Len() > 0:
		ts.Fatalf("a failed command wrote to stdout")
	case len(lines) != 1:
		ts.Fatalf("%d error lines instead of one", len(lines))
	case seal(store) != before:
		ts.Fatalf("the store has changed:\n--- before\n%s--- after\n%s", before, seal(store))
	}
}

// errorLine is how the one line of an error begins.
var errorLine = regexp.MustCompile(`(?m)^wherry: .+$`)

// cmdKilled: killed DURATION [as USER] PROGRAM ARG... kills the program and all it started after a while (it may be faster).
func cmdKilled(ts *testscript.TestScript, _ bool, args []string) {
	after, err := time.ParseDuration(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	cmd := prepare(ctx, ts, args[1:])
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err = cmd.Run()
	ts.Logf("after %v: %v", after, err)
}

// cmdParallel: parallel N [as USER] PROGRAM ARG... starts N at once, "{}" in an argument being their number from 1; all must succeed.
func cmdParallel(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	outs, errs := make([]bytes.Buffer, n), make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		one := make([]string, len(args)-1)
		for k, arg := range args[1:] {
			one[k] = strings.ReplaceAll(arg, "{}", strconv.Itoa(i+1))
		}
		cmd := prepare(ctx, ts, one)
		cmd.Stdout, cmd.Stderr = &outs[i], &outs[i]
		group.Go(func() { errs[i] = cmd.Run() })
	}
	group.Wait()
	for i := range n {
		fmt.Fprintf(ts.Stdout(), "%s", outs[i].Bytes())
		if errs[i] != nil {
			errs[i] = fmt.Errorf("number %d: %w\n%s", i+1, errs[i], outs[i].Bytes())
		}
	}
	ts.Check(errors.Join(errs...))
}
