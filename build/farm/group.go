package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

const (
	silentUntil = time.Second            // a longer wait is told
	grace       = 500 * time.Millisecond // for nodes that are not needed but could be the better ones
)

// NoNodeError says that nobody is left to build.
type NoNodeError struct {
	Builder   string // its name, "" for one without
	Platforms []v1.Platform
	Failed    []error // a [*NodeError] for each node
}

func (e *NoNodeError) Error() string {
	reasons := make([]string, len(e.Failed))
	for i, err := range e.Failed {
		reasons[i] = err.Error()
	}
	what := "no node is there"
	if len(e.Platforms) > 0 {
		what = "no node is left for " + strings.Join(names(e.Platforms), ", ")
	}
	return what + ": " + strings.Join(reasons, "; ")
}

// Unwrap returns what each node failed with.
func (e *NoNodeError) Unwrap() []error { return e.Failed }

// Group are the nodes of a builder as far as they are there. It is for one goroutine.
type Group struct {
	Name   string // the builder's, for errors
	Nodes  []Node
	Open   func(ctx context.Context, n Node) (*Conn, error) // nil: Connect
	Notice func(string)                                     // told of who is waited for or gone

	up   map[string]*Conn
	gone map[string]error
	news []error // of gone: what nobody was told yet
}

// answer is how it went with a node.
type answer struct {
	node Node
	conn *Conn
	err  error
}

// Ready returns parts for the platforms, on nodes that answer. It waits for a node only
// while no other is as good, and for none longer than it may take. Errors are
// [*NoNodeError], or ctx's cause.
func (g *Group) Ready(ctx context.Context, wanted []v1.Platform) ([]Part, error) {
	if g.up == nil {
		g.up, g.gone = map[string]*Conn{}, map[string]error{}
	}
	dialing, stop := context.WithCancel(ctx)
	defer stop()
	answers := make(chan answer, len(g.Nodes))
	pending := map[string]Node{}
	for _, n := range g.Nodes {
		if g.up[n.Name] == nil && g.gone[n.Name] == nil {
			pending[n.Name] = n
			go func() { answers <- g.ask(dialing, n) }()
		}
	}
	told, patience := time.After(silentUntil), time.After(grace)
	for len(pending) > 0 && (patience != nil && matters(wanted, pending) || !g.enough(wanted, pending)) {
		select {
		case a := <-answers:
			delete(pending, a.node.Name)
			g.note(a)
		case <-told:
			g.tellWaiting(pending)
		case <-patience:
			patience = nil
		case <-ctx.Done():
		}
		if err := context.Cause(ctx); err != nil {
			g.abandon(stop, answers, len(pending))
			return nil, err
		}
	}
	g.abandon(stop, answers, len(pending))
	conns := g.conns()
	if len(conns) == 0 {
		return nil, g.nobody(wanted)
	}
	for _, err := range g.news {
		g.notify(err.Error())
	}
	g.news = nil
	return Assign(wanted, conns), nil
}

func (g *Group) ask(ctx context.Context, n Node) answer {
	open := g.Open
	if open == nil {
		open = Connect
	}
	conn, err := open(ctx, n)
	return answer{n, conn, err}
}

// note takes an answer.
func (g *Group) note(a answer) {
	if a.err == nil {
		g.up[a.node.Name] = a.conn
		return
	}
	if !errors.Is(a.err, context.Canceled) {
		g.Lose(a.node, a.err)
	}
}

// abandon takes no more answers; who answers all the same is used later.
func (g *Group) abandon(stop func(), answers chan answer, pending int) {
	stop()
	for range pending {
		g.note(<-answers)
	}
}

// enough says whether no node that is still awaited would be chosen over those that are there.
func (g *Group) enough(wanted []v1.Platform, pending map[string]Node) bool {
	for _, p := range wanted {
		best := Unknown + 1
		for _, c := range g.conns() {
			best = min(best, c.Rank(p))
		}
		for _, n := range pending {
			if best > Native || best == Native && n.isFor(p) {
				return false
			}
		}
	}
	return true
}

// matters says whether a node that is awaited could build one of the platforms well.
func matters(wanted []v1.Platform, pending map[string]Node) bool {
	for _, n := range pending {
		if len(n.Platforms) == 0 || slices.ContainsFunc(wanted, n.isFor) {
			return true
		}
	}
	return false
}

func (g *Group) tellWaiting(pending map[string]Node) {
	for _, n := range g.Nodes {
		if _, is := pending[n.Name]; is {
			g.notify(fmt.Sprintf("waiting for node %q (%s)", n.Name, n.Endpoint))
		}
	}
}

// Lose gives a node up.
func (g *Group) Lose(n Node, err error) {
	if c := g.up[n.Name]; c != nil {
		_ = c.Close() // it is of no use any more
		delete(g.up, n.Name)
	}
	if _, named := errors.AsType[*NodeError](err); !named {
		err = n.fail(err)
	}
	g.gone[n.Name] = err
	g.news = append(g.news, err)
}

// conns are the nodes that are there, in the builder's order.
func (g *Group) conns() []*Conn {
	var list []*Conn
	for _, n := range g.Nodes {
		if c := g.up[n.Name]; c != nil {
			list = append(list, c)
		}
	}
	return list
}

func (g *Group) nobody(wanted []v1.Platform) error {
	e := &NoNodeError{Builder: g.Name, Platforms: wanted}
	for _, n := range g.Nodes {
		if err := g.gone[n.Name]; err != nil {
			e.Failed = append(e.Failed, err)
		}
	}
	return e
}

// Close ends the connections.
func (g *Group) Close() error {
	var errs []error
	for _, c := range g.up {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (g *Group) notify(msg string) {
	if g.Notice != nil {
		g.Notice(msg)
	}
}

// Plan says what is built where, a line for each platform, in their order.
func Plan(wanted []v1.Platform, parts []Part) []string {
	var lines []string
	for _, p := range wanted {
		for _, part := range parts {
			if i := slices.IndexFunc(part.Platforms, p.Equals); i >= 0 {
				lines = append(lines, fmt.Sprintf("%s is built on node %q, %s", platform.Format(p), part.Conn.Node.Name, part.Ranks[i]))
			}
		}
	}
	return lines
}
