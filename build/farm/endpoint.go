package farm

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// endpoint is how a node is reached: by a socket, or by what a program says on its stdin
// and stdout.
type endpoint struct {
	network, address string
	command          []string
}

// schemes are those of endpoints, but for [Local].
var schemes = []string{"tcp", "unix", "ssh", "kube-pod", "docker-container", "podman-container"}

// IsEndpoint says whether text could be the address of a node.
func IsEndpoint(text string) bool {
	scheme, _, ok := strings.Cut(text, "://")
	return text == Local || ok && slices.Contains(schemes, scheme)
}

// parseEndpoint reads the URLs that BuildKit's own client knows. Parts of one that become
// arguments of a program can't be taken for its options.
func parseEndpoint(text string) (endpoint, error) {
	if text == Local {
		return endpoint{}, nil
	}
	if !IsEndpoint(text) {
		return endpoint{}, fmt.Errorf("invalid endpoint %q: want local, or a URL with %s", text, strings.Join(schemes, "://, ")+"://")
	}
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, fmt.Errorf("invalid endpoint %q", text) // url's own error could tell a password
	}
	e, err := newEndpoint(u)
	if err != nil {
		return endpoint{}, fmt.Errorf("invalid endpoint %s: %w", u.Redacted(), err)
	}
	for _, arg := range e.command {
		if strings.ContainsFunc(arg, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return endpoint{}, fmt.Errorf("invalid endpoint %q: control characters", text)
		}
	}
	return e, nil
}

func newEndpoint(u *url.URL) (endpoint, error) {
	if _, has := u.User.Password(); has {
		return endpoint{}, errors.New("a password can't be in it")
	}
	if u.Fragment != "" || u.Scheme != "ssh" && u.User != nil {
		return endpoint{}, errors.New("too much in it")
	}
	switch u.Scheme {
	case "tcp":
		if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Path != "" || u.RawQuery != "" {
			return endpoint{}, errors.New("want tcp://HOST:PORT")
		}
		return endpoint{network: "tcp", address: u.Host}, nil
	case "unix":
		if u.Host != "" || u.Path == "" || u.RawQuery != "" {
			return endpoint{}, errors.New("want unix:///PATH")
		}
		return endpoint{network: "unix", address: u.Path}, nil
	case "ssh":
		return sshEndpoint(u)
	case "kube-pod":
		return podEndpoint(u)
	}
	return containerEndpoint(u)
}

// dialStdio is the program of BuildKit's that each node has: it connects its stdin and
// stdout to the daemon.
func dialStdio(args ...string) []string {
	return append(append([]string{"buildctl"}, args...), "dial-stdio")
}

// sshEndpoint is ssh://[USER@]HOST[:PORT][/SOCKET].
func sshEndpoint(u *url.URL) (endpoint, error) {
	host, user, remote := u.Hostname(), u.User.Username(), dialStdio()
	if host == "" || u.RawQuery != "" || isOption(host) || isOption(user) {
		return endpoint{}, errors.New("want ssh://[USER@]HOST[:PORT][/SOCKET]")
	}
	if u.Path != "" {
		if strings.ContainsFunc(u.Path, func(r rune) bool { return !isPlain(r) && r != '/' }) { // a shell reads it there
			return endpoint{}, fmt.Errorf("%q is no plain path", u.Path)
		}
		remote = dialStdio("--addr", "unix://"+u.Path)
	}
	args := []string{"ssh"}
	if user != "" {
		args = append(args, "-l", user)
	}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	return endpoint{command: append(append(args, "--", host), remote...)}, nil
}

// podEndpoint is kube-pod://POD[?context=C][&namespace=N][&container=C].
func podEndpoint(u *url.URL) (endpoint, error) {
	q, err := query(u, "context", "namespace", "container")
	if err != nil {
		return endpoint{}, err
	}
	for _, name := range []string{u.Hostname(), q.Get("namespace"), q.Get("container")} {
		if isOption(name) || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			return endpoint{}, fmt.Errorf("%q is no name of Kubernetes", name)
		}
	}
	if u.Hostname() == "" || u.Path != "" {
		return endpoint{}, errors.New("want kube-pod://POD[?namespace=NAMESPACE]")
	}
	args := []string{"kubectl"}
	for _, key := range []string{"context", "namespace"} {
		if q.Get(key) != "" {
			args = append(args, "--"+key+"="+q.Get(key))
		}
	}
	args = append(args, "exec")
	if c := q.Get("container"); c != "" {
		args = append(args, "--container="+c)
	}
	return endpoint{command: append(append(args, "-i", u.Hostname(), "--"), dialStdio()...)}, nil
}

// containerEndpoint is docker-container://NAME[?context=C] or podman-container://NAME.
func containerEndpoint(u *url.URL) (endpoint, error) {
	known := []string{}
	if u.Scheme == "docker-container" {
		known = append(known, "context")
	}
	q, err := query(u, known...)
	if err != nil {
		return endpoint{}, err
	}
	name := u.Hostname()
	if name == "" || isOption(name) || u.Path != "" || strings.ContainsFunc(name, func(r rune) bool { return !isPlain(r) }) {
		return endpoint{}, fmt.Errorf("want %s://NAME", u.Scheme)
	}
	program, _, _ := strings.Cut(u.Scheme, "-")
	args := []string{program}
	if c := q.Get("context"); c != "" {
		args = append(args, "--context="+c)
	}
	return endpoint{command: append(append(args, "exec", "-i", name), dialStdio()...)}, nil
}

// query refuses keys that mean nothing.
func query(u *url.URL, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("its query can't be read")
	}
	for key := range q {
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("no key %q", key)
		}
	}
	return q, nil
}

func isOption(arg string) bool { return strings.HasPrefix(arg, "-") }

// isPlain is a character that no shell cares for.
func isPlain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r)
}
