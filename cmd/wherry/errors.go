package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// The program's exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is a command line that can't be understood.
type usageError struct {
	command string // "wherry image ls"
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// unknownCommandError is a first word that is no command.
type unknownCommandError struct {
	parent, name, near string
}

func (e *unknownCommandError) Error() string {
	return fmt.Sprintf("%q is not a %s command", e.name, e.parent)
}

// hintedError is an error of a command that knows what to type instead.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

func withHint(err error, format string, args ...any) error {
	return &hintedError{err: err, hint: fmt.Sprintf(format, args...)}
}

// report prints err, where there is one, and returns the exit code it stands for.
func report(ctx context.Context, w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil {
		fmt.Fprintln(w, program+": interrupted")
		return exitInterrupted
	}
	text, hint, code := describe(err)
	fmt.Fprintf(w, "%s: %s\n", program, printable(text))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(hint))
	}
	return code
}

// describe is the one place that turns errors into words, a command to type and
// an exit code.
func describe(err error) (text, hint string, code int) {
	text, code = err.Error(), exitFailed
	if e, ok := errors.AsType[*usageError](err); ok {
		return text, fmt.Sprintf("run '%s --help'", e.command), exitUsage
	}
	if e, ok := errors.AsType[*unknownCommandError](err); ok {
		if e.near == "" {
			return text, fmt.Sprintf("run '%s --help'", e.parent), exitUsage
		}
		return text, e.parent + " " + e.near, exitUsage
	}
	if _, ok := errors.AsType[*badFormatError](err); ok {
		return text, "", exitUsage
	}
	if e, ok := errors.AsType[*hintedError](err); ok {
		return text, e.hint, code
	}
	return text, "", code
}

// printable makes what a server or an archive sent harmless to a terminal:
// control characters are shown, not obeyed.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
