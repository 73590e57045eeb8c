package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// promptLogin asks the person at the terminal for what auth lacks.
func (e *env) promptLogin(ctx context.Context, auth authn.AuthConfig) (authn.AuthConfig, error) {
	var err error
	if auth.Username == "" {
		fmt.Fprint(e.Stderr, "Username: ")
		if auth.Username, err = readLine(e.stdin(ctx)); err != nil {
			return auth, fmt.Errorf("reading the username: %w", err)
		}
		if auth.Username == "" {
			return auth, errors.New("username is required")
		}
		if strings.Contains(auth.Username, ":") {
			return auth, errUserColon
		}
	}
	if auth.Password == "" {
		fmt.Fprint(e.Stderr, "Password: ")
		restore := e.KeepTerminal()
		auth.Password, err = orInterrupted(ctx, func() (string, error) {
			b, err := e.ReadPassword()
			return string(b), err
		})
		restore() // an interrupted prompt must not leave the terminal without echo
		fmt.Fprintln(e.Stderr)
		if err != nil {
			return auth, fmt.Errorf("reading the password: %w", err)
		}
		if auth.Password == "" {
			return auth, errors.New("password is required")
		}
	}
	return auth, nil
}

// readLine reads up to the end of a line and not a byte further: what follows is
// for the next prompt.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); len(line) < 4096; line = append(line, one[0]) {
		switch _, err := io.ReadFull(r, one); {
		case errors.Is(err, io.EOF) && len(line) > 0:
			return strings.TrimSpace(string(line)), nil
		case err != nil:
			return "", err
		case one[0] == '\n':
			return strings.TrimSpace(string(line)), nil
		}
	}
	return "", errors.New("the line is too long")
}
