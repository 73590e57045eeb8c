package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// screenLimit is how long a screen may take to show what is awaited.
const screenLimit = 30 * time.Second

// cmdScreen is a person at a terminal, played by tmux: what stands on the screen is what a terminal makes of all that was written.
//
//	screen open COLUMNSxROWS PROGRAM ARG...   a terminal with a program in it, until the next one or the end
//	screen type KEY...                        text, and keys by their names: Enter, Tab, C-c
//	screen await REGEXP                       waits until it matches (in multi-line mode), and prints the screen
//	screen resize COLUMNSxROWS
//	screen show                               prints the screen, and what has scrolled off it
func cmdScreen(ts *testscript.TestScript, _ bool, args []string) {
	switch verb, args := args[0], args[1:]; verb {
	case "open":
		columns, rows, _ := strings.Cut(args[0], "x")
		if ts.Getenv("SCREEN") != "" {
			_, _ = tmux(ts, "kill-server") // it may have ended with its program
		}
		// A socket of its own: the last server may still be about to end.
		ts.Setenv("SCREEN", filepath.Join(ts.Getenv("STATE"), fmt.Sprintf("screen-%d", time.Now().UnixNano())))
		ts.Defer(func() { _, _ = tmux(ts, "kill-server") })
		program := append([]string{"new-session", "-d", "-s", "story", "-x", columns, "-y", rows}, args[1:]...)
		ts.Check(second(tmux(ts, program...)))
	case "type":
		ts.Check(second(tmux(ts, append([]string{"send-keys", "-t", "story", "--"}, args...)...)))
	case "await":
		awaitScreen(ts, regexp.MustCompile("(?m)"+args[0]))
	case "resize":
		columns, rows, _ := strings.Cut(args[0], "x")
		ts.Check(second(tmux(ts, "resize-window", "-t", "story", "-x", columns, "-y", rows)))
	case "show":
		out := ts.Stdout()
		text, err := tmux(ts, "capture-pane", "-p", "-t", "story", "-S", strconv.Itoa(-2000))
		ts.Check(err)
		fmt.Fprint(out, text)
	default:
		ts.Fatalf("screen has no %q", verb)
	}
}

func second(_ string, err error) error { return err }

func awaitScreen(ts *testscript.TestScript, want *regexp.Regexp) {
	out := ts.Stdout()
	for end := time.Now().Add(screenLimit); ; time.Sleep(20 * time.Millisecond) {
		text, err := tmux(ts, "capture-pane", "-p", "-t", "story")
		ts.Check(err)
		if want.MatchString(text) {
			fmt.Fprint(out, text)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no %v on the screen within %v, only:\n%s", want, screenLimit, text)
		}
	}
}

// tmux runs a command of a server that belongs to this story alone.
func tmux(ts *testscript.TestScript, args ...string) (string, error) {
	args = append([]string{"-u", "-S", ts.Getenv("SCREEN"), "-f", "/dev/null"}, args...)
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "tmux", args...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), append(environment(ts), "TERM=xterm-256color", "PS1=$ ", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("tmux %s: %w\n%s", strings.Join(args[5:], " "), err, out)
	}
	return string(out), err
}
