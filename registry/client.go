package registry

import (
	"context"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Config says how a [Client] reaches registries. Its zero value works: nobody is
// logged in, and every name is served by its own host over TLS.
type Config struct {
	// Keychain gives the credentials of a host; nil means anonymous.
	Keychain authn.Keychain

	// HostsDirs are the certs.d folders to look a host up in, in order. In the
	// host's folder a hosts.toml is read as containerd reads it, and without one
	// docker's *.crt, *.cert and *.key.
	HostsDirs []string

	// UserAgent is sent with every request; empty means "wherry".
	UserAgent string

	// Notice is told, once for each registry, that a later host of hosts.toml
	// answered instead of the first. It may be nil.
	Notice func(msg string)

	// Progress is told how far the upload of a blob is. The first call for a
	// blob with written equal to its size means that the registry has it
	// already; the last call of an uploaded blob has it too. It is called
	// concurrently, and may be nil.
	Progress func(d v1.Descriptor, written int64)
}

// Client talks to registries. It is safe for concurrent use, and keeps one pool
// of connections for each host it has spoken to.
type Client struct {
	config Config
}

// New returns a client that works as c says. Nothing is read or dialled yet.
func New(c Config) *Client {
	return &Client{config: c}
}

// Push sends src and everything reachable from it to ref.
func (c *Client) Push(ctx context.Context, ref reference.Named, src Source) error {
	return errNotYet
}

// Tags lists the tags of repo.
func (c *Client) Tags(ctx context.Context, repo reference.Named) ([]string, error) {
	return nil, errNotYet
}

// CheckLogin asks host whether it accepts auth.
func (c *Client) CheckLogin(ctx context.Context, host string, auth authn.AuthConfig) error {
	return errNotYet
}
