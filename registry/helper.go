package registry

import (
	"fmt"
	"io"
	"os/exec"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// helperPrefix is what the programs are called that keep secrets for docker.
	helperPrefix = "docker-credential-"

	// tokenUser marks an identity token where a helper has only a user name and
	// a secret.
	tokenUser = "<token>"
)

// HelperError says that the program which keeps the credentials of a registry
// cannot be used.
type HelperError struct {
	Helper string // the program: "docker-credential-pass"
	Host   string // the registry
	Err    error  // an [*exec.Error] where there is no such program
}

func (e *HelperError) Error() string {
	if is[*exec.Error](e.Err) {
		return fmt.Sprintf("credential helper %q for registry %s is not installed", e.Helper, e.Host)
	}
	return fmt.Sprintf("credential helper %q for registry %s: %s", e.Helper, e.Host, bounded(e.Err.Error()))
}

// Unwrap returns what went wrong with the helper.
func (e *HelperError) Unwrap() error { return e.Err }

// program runs a helper. What it says on stderr is not shown: it stands in the
// error, and a helper that finds nothing talks too.
type program struct{ *exec.Cmd }

// Input implements [client.Program].
func (p program) Input(in io.Reader) { p.Stdin = in }

func helperProgram(name string) client.ProgramFunc {
	return func(args ...string) client.Program {
		return program{exec.Command(name, args...)} //nolint:noctx // a keychain is asked without a context
	}
}

func installed(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// askHelper for the credentials of host. A helper that is not installed has none.
func askHelper(helper, host string) (authn.AuthConfig, error) {
	name := helperPrefix + helper
	if !installed(name) {
		return authn.AuthConfig{}, nil
	}
	got, err := client.Get(helperProgram(name), serverKey(host))
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return authn.AuthConfig{}, nil
	case err != nil:
		return authn.AuthConfig{}, &HelperError{Helper: name, Host: host, Err: err}
	case got.Username == tokenUser:
		return authn.AuthConfig{IdentityToken: got.Secret}, nil
	}
	return authn.AuthConfig{Username: got.Username, Password: got.Secret}, nil
}

func storeInHelper(helper, host string, a authn.AuthConfig) error {
	secret := &credentials.Credentials{ServerURL: serverKey(host), Username: a.Username, Secret: a.Password}
	if a.IdentityToken != "" {
		secret.Username, secret.Secret = tokenUser, a.IdentityToken
	}
	return runHelper(helper, host, func(p client.ProgramFunc) error { return client.Store(p, secret) })
}

// eraseInHelper asks first: helpers call it an error to erase what is not there.
func eraseInHelper(helper, host string) (found bool, err error) {
	err = runHelper(helper, host, func(p client.ProgramFunc) error {
		if _, err := client.Get(p, serverKey(host)); credentials.IsErrCredentialsNotFound(err) {
			return nil
		}
		found = true
		return client.Erase(p, serverKey(host))
	})
	return found, err
}

func runHelper(helper, host string, run func(client.ProgramFunc) error) error {
	name := helperPrefix + helper
	_, err := exec.LookPath(name)
	if err == nil {
		err = run(helperProgram(name))
	}
	if err != nil {
		return &HelperError{Helper: name, Host: host, Err: err}
	}
	return nil
}
