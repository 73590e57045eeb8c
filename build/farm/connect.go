package farm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/wherry-oci/wherry/platform"
)

const (
	firstPause = 100 * time.Millisecond // between tries to reach a node; each is twice the last
	longPause  = 2 * time.Second
	answerTime = 10 * time.Second // for a node that is asked whether it is there
)

// Conn is an open way to a node.
type Conn struct {
	Node    Node
	Client  *client.Client
	Worker  *client.WorkerInfo // the first of the node's
	Version string             // of its BuildKit
	fault   *fault
	foreign bool // the client is closed by who made it
}

// Close ends the connection, unless the client was there before.
func (c *Conn) Close() error {
	if c.foreign {
		return nil
	}
	return c.Client.Close()
}

// fault is the first error of a node's connections, which gRPC knows as text alone.
type fault struct {
	mu  sync.Mutex
	err error
}

func (f *fault) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *fault) or(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return err
}

// Use makes a client that is open already, and that the caller closes, the way to a node.
func Use(ctx context.Context, n Node, c *client.Client) (*Conn, error) {
	conn := &Conn{Node: n, Client: c, fault: &fault{}, foreign: true}
	return conn, conn.meet(ctx)
}

// Connect opens the way to a node, which may take [Node.Wait] to answer. An error that
// waiting does not cure ends it. Errors are [*NodeError].
func Connect(ctx context.Context, n Node) (*Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, n.wait())
	defer cancel()
	pause := firstPause
	var last error
	for {
		c, err := try(bounded, n)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, context.DeadlineExceeded) && last != nil {
			err = last // that says more
		}
		last = err
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if lasting(err) {
			return nil, n.fail(err)
		}
		select {
		case <-bounded.Done():
			return nil, n.fail(tooLate(ctx, err, n.wait()))
		case <-time.After(pause):
			pause = min(2*pause, longPause)
		}
	}
}

// Once opens the way to a node that is there now. Errors are [*NodeError].
func Once(ctx context.Context, n Node) (*Conn, error) {
	c, err := try(ctx, n)
	if err != nil && ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errors.New("no answer in time")
	}
	if err != nil {
		return nil, n.fail(err)
	}
	return c, nil
}

// tooLate is err after waiting has come to its end.
func tooLate(ctx context.Context, err error, wait time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer for %v", wait)
	}
	return fmt.Errorf("no connection for %v: %w", wait, err)
}

// lasting errors stay however long one waits.
func lasting(err error) bool {
	_, untrusted := errors.AsType[*TLSError](err)
	name, _ := errors.AsType[*net.DNSError](err)
	return untrusted || name != nil && name.IsNotFound || errors.Is(err, fs.ErrPermission) || errors.Is(err, exec.ErrNotFound)
}

// try opens the way once.
func try(ctx context.Context, n Node) (*Conn, error) {
	f := &fault{}
	first, err := n.dial(ctx, f)
	if err != nil {
		return nil, err
	}
	open := make(chan net.Conn, 1)
	open <- first
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		select {
		case c := <-open:
			return c, nil
		default:
			return n.dial(ctx, f)
		}
	}
	c, err := client.New(ctx, "passthrough:///"+n.Name, client.WithContextDialer(dialer), client.WithGRPCDialOption(grpc.WithAuthority(n.authority())))
	if err != nil {
		return nil, errors.Join(err, first.Close())
	}
	conn := &Conn{Node: n, Client: c, fault: f}
	if err := conn.meet(ctx); err != nil {
		_ = c.Close() // it did not work
		return nil, f.or(err)
	}
	return conn, nil
}

// authority is what a proxy in front of a node goes by.
func (n Node) authority() string {
	if n.TLS.ServerName != "" {
		return n.TLS.ServerName
	}
	if e, err := parseEndpoint(n.Endpoint); err == nil && e.network == "tcp" {
		return e.address
	}
	return "localhost"
}

// dial opens one connection.
func (n Node) dial(ctx context.Context, f *fault) (net.Conn, error) {
	e, err := parseEndpoint(n.Endpoint)
	if err != nil {
		return nil, err
	}
	if e.command != nil {
		conn, err := runCommand(e.command) //nolint:contextcheck // the program is the connection, and outlives the dialling
		if err != nil {
			return nil, err
		}
		return &notedConn{conn, f, ""}, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, e.network, e.address)
	if err != nil {
		return nil, cause(err)
	}
	if !n.TLS.wanted() {
		return &notedConn{conn, f, ""}, nil
	}
	secured, err := n.TLS.secure(ctx, conn, e.address)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &notedConn{secured, f, n.TLS.ServerName}, nil
}

// cause strips what the caller says in its own words.
func cause(err error) error {
	if _, ok := errors.AsType[*TLSError](err); ok {
		return err // in words already
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err
}

var errClosed = errors.New("it has closed the connection")

// notedConn notes why a node can't be read from: that it refuses a certificate is heard
// after the handshake.
type notedConn struct {
	net.Conn
	fault  *fault
	server string
}

func (c *notedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		c.fault.note(errClosed)
	case err != nil && !errors.Is(err, net.ErrClosed):
		c.fault.note(cause(explainTLS(err, c.server)))
	}
	return n, err
}

// meet asks the node who it is.
func (c *Conn) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	workers, err := c.Client.ListWorkers(ctx)
	if err != nil {
		return err
	}
	if len(workers) == 0 {
		return errors.New("it has no worker")
	}
	c.Worker, c.Version = workers[0], workers[0].BuildkitVersion.Version
	if info, err := c.Client.Info(ctx); err == nil { // not there before v0.11
		c.Version = info.BuildkitVersion.Version
	}
	return nil
}

// Alive asks the node for a sign of life.
func (c *Conn) Alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	_, err := c.Client.ListWorkers(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return c.Node.fail(fmt.Errorf("no answer for %v", answerTime))
	}
	if err != nil {
		return c.Node.fail(c.fault.or(err))
	}
	return nil
}

// Platforms are those that the node builds steps for: its own first, then those that it
// emulates.
func (c *Conn) Platforms() []v1.Platform {
	list := make([]v1.Platform, len(c.Worker.Platforms))
	for i, p := range c.Worker.Platforms {
		list[i] = fromOCI(p)
	}
	return list
}

func fromOCI(p ocispecs.Platform) v1.Platform {
	return platform.Normalize(v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures})
}
