package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

// dockerHub is the registry of login and logout without an argument.
const dockerHub = "docker.io"

// maxPassword bounds what is read from stdin: tokens are long, but not this long.
const maxPassword = 64 << 10

type loginOptions struct {
	Host          string // empty: Docker Hub
	Username      string
	Password      string
	PasswordStdin bool
}

func newLoginCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "login",
		Usage:       "Authenticate to a registry",
		ArgsUsage:   "[SERVER]",
		Description: "Defaults to Docker Hub if no server is specified.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "password", Aliases: []string{"p"}, Usage: "Password or Personal Access Token (PAT), or \"-\" to read from stdin"},
			&cli.BoolFlag{Name: "password-stdin", Usage: "Take the Password or Personal Access Token (PAT) from stdin"},
			&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Usage: "Username"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 0, 1)
			if err != nil {
				return err
			}
			o := loginOptions{
				Host: firstOf(args...), Username: c.String("username"),
				Password: c.String("password"), PasswordStdin: c.Bool("password-stdin"),
			}
			if err := checkLoginFlags(c, &o); err != nil {
				return &usageError{command: commandPath(c), err: err}
			}
			return runLogin(c.Context, e, o)
		},
	}
}

func checkLoginFlags(c *cli.Context, o *loginOptions) error {
	if o.Password == "-" {
		o.Password, o.PasswordStdin = "", true
	}
	switch {
	case o.PasswordStdin && o.Password != "":
		return errors.New("conflicting options: cannot specify both --password and --password-stdin")
	case o.PasswordStdin && !c.IsSet("username"):
		return errors.New("the --password-stdin option requires --username to be set")
	case c.IsSet("username") && o.Username == "":
		return errors.New("username is empty")
	case c.IsSet("password") && o.Password == "" && !o.PasswordStdin:
		return errors.New("password is empty")
	case strings.Contains(o.Username, ":"):
		return errUserColon
	}
	return nil
}

// errUserColon: RFC 7617 has the colon between the name and the password.
var errUserColon = errors.New("a username cannot have a colon in it")

// runLogin keeps credentials only after the registry has accepted them.
func runLogin(ctx context.Context, e *env, o loginOptions) error {
	host := registryHost(o.Host)
	if o.Password != "" {
		e.say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	e.sayGivenAuth()
	stored, err := e.credentials()
	if err != nil {
		return err
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	if o.Username == "" && o.Password == "" && loginAgain(ctx, e, client, stored, host) {
		return nil
	}
	auth, err := askLogin(ctx, e, o, host)
	if err != nil {
		return err
	}
	if err := client.CheckLogin(ctx, host, auth); err != nil {
		return concerning("login", host, err)
	}
	file, err := stored.Store(ctx, host, auth)
	if err != nil {
		return fmt.Errorf("error saving credentials: %w", err)
	}
	if file != "" {
		e.say(unencryptedWarning, file)
	}
	fmt.Fprintln(&e.Out, "Login Succeeded")
	return nil
}

// unencryptedWarning is docker's.
const unencryptedWarning = `
WARNING! Your credentials are stored unencrypted in '%s'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
`

// sayGivenAuth warns, as docker does, of credentials that win over those of a login.
func (e *env) sayGivenAuth() {
	if e.Getenv("DOCKER_AUTH_CONFIG") != "" {
		e.say("WARNING: DOCKER_AUTH_CONFIG is set and takes precedence.\nUnset DOCKER_AUTH_CONFIG to restore the CLI auth behaviour.")
	}
}

// loginAgain tries the credentials that are kept for host already, as docker does
// where none are given.
func loginAgain(ctx context.Context, e *env, client *registry.Client, stored *registry.Credentials, host string) bool {
	keys, err := stored.Resolve(hostResource(host))
	if err != nil || keys == authn.Anonymous {
		return false
	}
	auth, err := keys.Authorization()
	if err != nil {
		return false
	}
	e.say("Authenticating with existing credentials... [Username: %s]", printable(auth.Username))
	if err := client.CheckLogin(ctx, host, *auth); err != nil {
		if _, denied := errors.AsType[*registry.UnauthorizedError](err); denied {
			e.say("Stored credentials invalid or expired")
		} else {
			e.say("Login did not succeed, error: %s", printable(err.Error()))
		}
		return false
	}
	fmt.Fprintln(&e.Out, "Login Succeeded")
	return true
}

// hostResource is a registry as credentials are looked up for it.
type hostResource string

// String and RegistryStr make it an [authn.Resource].
func (h hostResource) String() string      { return string(h) }
func (h hostResource) RegistryStr() string { return string(h) }

// askLogin completes what the flags left open from stdin or the terminal.
func askLogin(ctx context.Context, e *env, o loginOptions, host string) (authn.AuthConfig, error) {
	auth := authn.AuthConfig{Username: o.Username, Password: o.Password}
	if o.PasswordStdin {
		password, err := io.ReadAll(io.LimitReader(e.stdin(ctx), maxPassword+1))
		if err != nil {
			return auth, fmt.Errorf("reading the password: %w", err)
		}
		auth.Password = trimLineEnd(password)
		switch {
		case len(password) > maxPassword:
			return auth, fmt.Errorf("password on stdin is larger than %d KiB", maxPassword>>10)
		case strings.TrimSpace(auth.Password) == "":
			return auth, errors.New("password is empty")
		}
	}
	if auth.Username != "" && auth.Password != "" {
		return auth, nil
	}
	if !e.StdinTTY {
		return auth, withHint(errors.New("cannot perform an interactive login from a non-TTY device"),
			"%s login -u %s --password-stdin %s < FILE", program, firstOf(auth.Username, "USER"), host)
	}
	return e.promptLogin(ctx, auth)
}

func trimLineEnd(b []byte) string {
	b = bytes.TrimSuffix(b, []byte("\n"))
	return string(bytes.TrimSuffix(b, []byte("\r")))
}

// registryHost is the registry meant by login's argument: people paste URLs.
func registryHost(typed string) string {
	host := strings.TrimPrefix(strings.TrimPrefix(typed, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", "index.docker.io", "registry-1.docker.io":
		return dockerHub
	}
	return host
}
