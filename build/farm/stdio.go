package farm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// maxComplaint bounds what is kept of what a program says on stderr, in bytes.
const maxComplaint = 4 << 10

// pipeConn is a connection through the stdin and stdout of a program.
type pipeConn struct {
	io.WriteCloser // stdin
	io.Reader      // stdout
	stop           func() error
	name           string
}

// runCommand starts a program that speaks for a node. It ends when the connection is closed.
func runCommand(args []string) (net.Conn, error) {
	ctx, kill := context.WithCancel(context.Background()) // it outlives the dialling
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 2 * time.Second
	complaint := &complaint{}
	cmd.Stderr = complaint
	stdin, err := cmd.StdinPipe()
	if err != nil {
		kill()
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		kill()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		kill()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed", args[0])
		}
		return nil, err
	}
	stop := sync.OnceValue(func() error {
		_ = stdin.Close() // it ends by that
		timer := time.AfterFunc(2*time.Second, kill)
		err := cmd.Wait()
		timer.Stop()
		kill()
		if text := complaint.last(); text != "" {
			return fmt.Errorf("%s: %s", args[0], text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return fmt.Errorf("%s has ended", args[0])
	})
	return &pipeConn{WriteCloser: stdin, Reader: stdout, stop: stop, name: args[0]}, nil
}

// Read says at the end what the program has said.
func (c *pipeConn) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n == 0 && err != nil {
		return 0, c.stop()
	}
	return n, nil
}

func (c *pipeConn) Close() error {
	_ = c.stop() // its end is no news
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr              { return pipeAddr(c.name) }
func (c *pipeConn) RemoteAddr() net.Addr             { return pipeAddr(c.name) }
func (c *pipeConn) SetDeadline(time.Time) error      { return nil } // gRPC does without
func (c *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *pipeConn) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }

// complaint is the beginning of what a program says on stderr.
type complaint struct {
	mu   sync.Mutex
	text []byte
}

func (c *complaint) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p[:min(len(p), maxComplaint-len(c.text))]...)
	return len(p), nil
}

// last is its last line.
func (c *complaint) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(c.text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
