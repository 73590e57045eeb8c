package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// shell is a POSIX-like sh: "sh -c SCRIPT [NAME ARG...]", "sh FILE [ARG...]" or
// a script on standard input; -e, -u and -x as usual.
func shell(args []string) error {
	flags, rest := options(args, "co")
	params := []string{}
	for _, letter := range "eux" {
		if has(flags, byte(letter)) {
			params = append(params, "-"+string(letter))
		}
	}
	var script io.Reader = os.Stdin
	name := "sh"
	switch {
	case has(flags, 'c'):
		script = strings.NewReader(flags['c'])
		if len(rest) > 0 {
			name, rest = rest[0], rest[1:]
		}
	case len(rest) > 0:
		file, err := os.Open(rest[0])
		if err != nil {
			return err
		}
		defer file.Close()
		script, name, rest = file, rest[0], rest[1:]
	}
	return interpret(script, name, append(append(params, "--"), rest...))
}

func interpret(script io.Reader, name string, params []string) error {
	prog, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(script, name)
	if err != nil {
		return err
	}
	runner, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.Params(params...))
	if err != nil {
		return err
	}
	err = runner.Run(context.Background(), prog)
	var status interp.ExitStatus
	if errors.As(err, &status) {
		return exitCode(status)
	}
	return err
}
