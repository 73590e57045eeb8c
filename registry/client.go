package registry

import (
	"cmp"
	"fmt"
	"sync"
	"time"

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

	// Insecure is docker's --insecure, for every registry: certificates are not
	// verified, and a host that does not speak TLS is spoken to without it, also
	// to log in.
	Insecure bool

	// UserAgent is sent with every request; empty means "wherry".
	UserAgent string

	// Notice is told, once for each registry, that a later host of hosts.toml
	// answered instead of the first, and that a registry makes us wait. It is
	// never called concurrently, and may be nil.
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
	limits limits
	hosts  hostTable
	logins sync.Map // of loginKey to *authorizer
	open   pools    // for addresses that are no registries

	held      sync.Map // of heldBlob to string: a repository that has the blob
	lists     sync.Map // of *endpoint: those that list referrers by themselves
	referring sync.Map // of string to *sync.Mutex: one for each list that stands in

	mu   sync.Mutex // held while Notice is called
	told map[string]bool
}

// New returns a client that works as c says. Nothing is read or dialled yet.
func New(c Config) *Client {
	return &Client{config: c, limits: defaultLimits()}
}

// loginKey: credentials may differ between the repositories of one host.
type loginKey struct {
	to   *endpoint
	repo string
}

// session for ref's repository on one of its endpoints.
func (c *Client) session(to *endpoint, ref reference.Named, action string) *session {
	repo := reference.Path(ref)
	return &session{
		to: to, repo: repo, ref: reference.FamiliarString(ref), action: action,
		auth: c.authorizer(to, repo), agent: c.agent(), limits: c.limits, tries: c.limits.tries,
		waits: func(status int, d time.Duration) { c.noticeWait(to, status, d) },
	}
}

// hostSession is one with a registry itself, about none of its repositories.
func (c *Client) hostSession(to *endpoint) *session {
	return &session{
		to: to, auth: c.authorizer(to, ""), agent: c.agent(), limits: c.limits, tries: c.limits.tries,
		waits: func(status int, d time.Duration) { c.noticeWait(to, status, d) },
	}
}

// notice tells msg unless something was told about topic before.
func (c *Client) notice(topic, msg string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config.Notice == nil || c.told[topic] {
		return
	}
	if c.told == nil {
		c.told = make(map[string]bool)
	}
	c.told[topic] = true
	c.config.Notice(msg)
}

// noticeWait: nobody waits without knowing why.
func (c *Client) noticeWait(to *endpoint, status int, d time.Duration) {
	if d < longWait {
		return
	}
	c.notice("wait "+to.host, fmt.Sprintf("registry %s is busy (status %d): asking again in %s",
		to.account(), status, d.Round(time.Second)))
}

// authorizer keeps tokens across the sessions of a repository.
func (c *Client) authorizer(to *endpoint, repo string) *authorizer {
	key := loginKey{to, repo}
	if a, ok := c.logins.Load(key); ok {
		return a.(*authorizer)
	}
	a, _ := c.logins.LoadOrStore(key, &authorizer{
		to: to, agent: c.agent(), limits: c.limits,
		login: sync.OnceValues(func() (authn.AuthConfig, error) { return c.login(to, repo) }),
	})
	return a.(*authorizer)
}

// login asks the keychain, under the names that people log in to.
func (c *Client) login(to *endpoint, repo string) (authn.AuthConfig, error) {
	if c.config.Keychain == nil {
		return authn.AuthConfig{}, nil
	}
	for _, account := range to.accounts() {
		found, err := c.config.Keychain.Resolve(resource{account, repo})
		if err != nil {
			return authn.AuthConfig{}, err
		}
		login, err := found.Authorization()
		if err != nil {
			return authn.AuthConfig{}, err
		}
		if login != nil && *login != (authn.AuthConfig{}) {
			return *login, nil
		}
	}
	return authn.AuthConfig{}, nil
}

// resource is what a keychain is asked for.
type resource struct{ host, repo string }

// String implements [authn.Resource].
func (r resource) String() string { return r.RegistryStr() + "/" + r.repo }

// RegistryStr implements [authn.Resource]. ggcr and its keychains spell Docker
// Hub as below.
func (r resource) RegistryStr() string {
	if r.host == dockerHub {
		return "index.docker.io"
	}
	return r.host
}

func (c *Client) agent() string {
	return cmp.Or(c.config.UserAgent, "wherry")
}

// anonymous is a session with a server that is no registry.
func (c *Client) anonymous(scheme, host string) *session {
	to := &endpoint{name: host, host: host, scheme: scheme, base: c.open.shared(c.limits)}
	return &session{
		to: to, agent: c.agent(), limits: c.limits, tries: c.limits.tries,
		auth: &authorizer{to: to, login: func() (authn.AuthConfig, error) { return authn.AuthConfig{}, nil }},
	}
}
