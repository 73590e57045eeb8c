// Package farm knows machines that build: BuildKit daemons, each a [Node] with an address
// and the platforms it is for, named together as a [Builder].
//
// A [Folder] keeps builders as files; a [Group] opens the ways to the nodes that a build
// needs, says which of them builds which platform, and forgets those that are gone;
// [Index] joins what they made. Builds themselves are package build's.
package farm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// Local is the address of a node that is this process itself.
const Local = "local"

// Default is the name of the builder that is this process alone; no other has it.
const Default = "default"

// DefaultWait is how long a node may take to answer that does not say otherwise.
const DefaultWait = 20 * time.Second

// Builder is a farm: nodes under one name.
type Builder struct {
	Name  string
	Nodes []Node
}

// Node is one BuildKit daemon.
type Node struct {
	Name      string
	Endpoint  string        // [Local], or a URL: tcp, unix, ssh, kube-pod, docker-container or podman-container
	Platforms []v1.Platform // what it is to build before any other node; none: what it can
	TLS       TLS           // of a tcp endpoint
	Wait      time.Duration // how long it may take to answer; 0: [DefaultWait]
}

// TLS are the files, PEM each, by which a node and this process know each other. The zero
// value is a connection without TLS. Only paths are kept, and files read at each connection.
type TLS struct {
	CACert     string // of who signs for the node; "" with any other set: the system's
	Cert, Key  string // this side's, where the node wants one
	ServerName string // what the node's certificate is for; "": the endpoint's host
}

func (t TLS) wanted() bool { return t != TLS{} }

// wait is how long the node may take to answer.
func (n Node) wait() time.Duration {
	if n.Wait > 0 {
		return n.Wait
	}
	return DefaultWait
}

// NodeError is what a node failed with, or the way to it.
type NodeError struct {
	Node, Endpoint string
	Err            error
}

func (e *NodeError) Error() string {
	return fmt.Sprintf("node %q (%s): %v", e.Node, e.Endpoint, e.Err)
}

func (e *NodeError) Unwrap() error { return e.Err }

// fail is err as one of the node.
func (n Node) fail(err error) error { return &NodeError{Node: n.Name, Endpoint: n.Endpoint, Err: err} }

// CheckName refuses what can't be the name of a builder or a node. Names become file names.
func CheckName(name string) error {
	letters := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r)
	}
	if name == "" || len(name) > 128 || strings.Trim(name[:1], "_.-") == "" ||
		strings.ContainsFunc(name, func(r rune) bool { return !letters(r) }) {
		return fmt.Errorf("invalid name %q: want letters, digits, and _ . - within", name)
	}
	return nil
}

// Add adds a node, or replaces that of its name. A node without a name gets the builder's
// with a number.
func (b *Builder) Add(n Node) error {
	if n.Name == "" {
		for i := 0; n.Name == "" || b.find(n.Name) >= 0; i++ {
			n.Name = fmt.Sprintf("%s%d", b.Name, i)
		}
	}
	if err := CheckName(n.Name); err != nil {
		return err
	}
	if err := n.check(); err != nil {
		return err
	}
	if i := b.find(n.Name); i >= 0 {
		b.Nodes[i] = n
	} else {
		b.Nodes = append(b.Nodes, n)
	}
	for _, other := range b.Nodes {
		if other.Name != n.Name && other.Endpoint == n.Endpoint {
			return fmt.Errorf("the nodes %q and %q have one address, %s", other.Name, n.Name, n.Endpoint)
		}
	}
	return nil
}

// Leave takes a node away. The last one stays.
func (b *Builder) Leave(name string) error {
	i := b.find(name)
	switch {
	case i < 0:
		return fmt.Errorf("builder %q has no node %q", b.Name, name)
	case len(b.Nodes) == 1:
		return errors.New("the last node can't leave a builder")
	}
	b.Nodes = slices.Delete(b.Nodes, i, i+1)
	return nil
}

// Node is the node of that name; nil if there is none.
func (b *Builder) Node(name string) *Node {
	if i := b.find(name); i >= 0 {
		return &b.Nodes[i]
	}
	return nil
}

func (b *Builder) find(name string) int {
	return slices.IndexFunc(b.Nodes, func(n Node) bool { return n.Name == name })
}

// HasLocal says whether this process is one of the nodes.
func (b *Builder) HasLocal() bool {
	return slices.ContainsFunc(b.Nodes, func(n Node) bool { return n.Endpoint == Local })
}

// check refuses what can't be a node.
func (n Node) check() error {
	if _, err := parseEndpoint(n.Endpoint); err != nil {
		return err
	}
	if n.TLS.wanted() && !strings.HasPrefix(n.Endpoint, "tcp://") {
		return fmt.Errorf("node %s: certificates are for tcp:// alone", n.Endpoint)
	}
	if (n.TLS.Cert == "") != (n.TLS.Key == "") {
		return fmt.Errorf("node %s: cert and key go together", n.Endpoint)
	}
	return nil
}

// names are platforms as people write them.
func names(list []v1.Platform) []string {
	text := make([]string, len(list))
	for i, p := range list {
		text[i] = platform.Format(p)
	}
	return text
}
