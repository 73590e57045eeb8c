package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"unicode"

	"golang.org/x/term"
)

// env is everything a command may touch outside of its options. Environment
// variables are read in this file and nowhere else.
type env struct {
	Stdin  io.Reader
	Stdout io.Writer    // for archives; all else is written to Out
	Out    bytes.Buffer // what goes to stdout once the command has succeeded
	Stderr io.Writer

	StdinTTY, StdoutTTY, StderrTTY bool
	ReadPassword                   func() ([]byte, error) // from the terminal, without echo
	Getenv                         func(string) string

	StoreDir  string // --store; empty: the default
	ConfigDir string // --config; empty: the default
}

// newEnv is the environment of the real process.
func newEnv() *env {
	return &env{
		Stdin:        os.Stdin,
		Stdout:       os.Stdout,
		Stderr:       os.Stderr,
		StdinTTY:     term.IsTerminal(int(os.Stdin.Fd())),
		StdoutTTY:    term.IsTerminal(int(os.Stdout.Fd())),
		StderrTTY:    term.IsTerminal(int(os.Stderr.Fd())),
		ReadPassword: func() ([]byte, error) { return term.ReadPassword(int(os.Stdin.Fd())) },
		Getenv:       os.Getenv,
	}
}

// flush writes Out to stdout.
func (e *env) flush() error {
	text := e.Out.Bytes()
	if e.StdoutTTY {
		text = harmless(text)
	}
	if _, err := e.Stdout.Write(text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	e.Out.Reset()
	return nil
}

// storeDir is where the images are: --store, WHERRY_STORE, or root's or the
// user's own folder.
func (e *env) storeDir() (string, error) {
	if dir := firstOf(e.StoreDir, e.Getenv("WHERRY_STORE")); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/wherry/store", nil
	}
	data := e.Getenv("XDG_DATA_HOME")
	if runtime.GOOS == "windows" {
		data = firstOf(data, e.Getenv("LOCALAPPDATA"))
	}
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", withHint(fmt.Errorf("no folder for the store: %w", err), "%s --store DIR ...", program)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "wherry", "store"), nil
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// harmless shows control characters instead of letting a terminal obey them.
func harmless(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
