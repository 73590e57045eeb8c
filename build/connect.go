//go:build linux

package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/moby/buildkit/client"

	"github.com/wherry-oci/wherry/build/engine"
)

// One engine works on a state folder at a time: whoever holds the lock runs it and
// serves it on a socket, the others join it and build in parallel with the same
// cache. The engine outlives its own build until its joiners are done. An engine has one
// way to run steps: who wants another one finds no socket of that, and waits for the lock.
const (
	lockName   = "lock"
	socketName = "engine.sock" // that of engines with nothing special

	pollEvery   = 20 * time.Millisecond
	silentUntil = time.Second // a longer wait is told
)

// connection is a client on an engine.
type connection struct {
	client *client.Client
	own    *ownEngine // nil: another process runs it
}

// ownEngine is the engine that this process runs for itself and its joiners.
type ownEngine struct {
	*engine.Engine
	lock    *flock.Flock
	joiners *joiners
}

// connect runs an engine on the state folder, or joins the one that runs there.
func connect(ctx context.Context, o engine.Options) (*connection, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	lock := flock.New(filepath.Join(o.Dir, lockName))
	waiting := time.AfterFunc(silentUntil, func() { notify(o.Notice, "waiting for the engine of another build") })
	defer waiting.Stop()
	for {
		elected, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("build state: lock: %w", err)
		}
		if elected {
			waiting.Stop()
			return run(ctx, o, lock)
		}
		if c, err := join(ctx, o.Dir, socketOf(o)); err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}

// socketOf names the socket of engines that run steps as o says.
func socketOf(o engine.Options) string {
	if o.Runtime == "" && !o.OwnLabel && !o.OwnProfile {
		return socketName
	}
	way := fmt.Sprintf("%q %t %t", o.Runtime, o.OwnLabel, o.OwnProfile)
	sum := sha256.Sum256([]byte(way))
	return fmt.Sprintf("engine-%x.sock", sum[:6])
}

// run starts an engine of our own and opens it to others.
func run(ctx context.Context, o engine.Options, lock *flock.Flock) (_ *connection, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	e, err := engine.New(ctx, o)
	if err != nil {
		return nil, err
	}
	l, err := listen(o.Dir, socketOf(o))
	if err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	c, err := e.Client(ctx)
	if err != nil {
		return nil, errors.Join(err, l.Close(), e.Close(ctx))
	}
	j := &joiners{Listener: l}
	go e.Serve(j)
	return &connection{client: c, own: &ownEngine{Engine: e, lock: lock, joiners: j}}, nil
}

// join connects to the engine of another process, and fails at once if there is
// none that answers.
func join(ctx context.Context, dir, socket string) (*connection, error) {
	if conn, err := dial(ctx, dir, socket); err != nil {
		return nil, err // before gRPC, which would try again for long
	} else if err := conn.Close(); err != nil {
		return nil, err
	}
	c, err := client.New(ctx, "passthrough:///wherry",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, dir, socket) }))
	if err != nil {
		return nil, err
	}
	if _, err := c.Info(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &connection{client: c}, nil
}

// close ends the connection. The engine of this process first waits for those who
// joined it.
func (c *connection) close(ctx context.Context, o engine.Options) error {
	if c.own == nil {
		return c.client.Close()
	}
	c.own.joiners.wait(o.Notice)
	err := c.bound(context.WithoutCancel(ctx), o)
	return errors.Join(err, c.client.Close(), c.own.Close(ctx), c.own.lock.Unlock())
}

// joiners is a listener that knows how many of its connections are open.
type joiners struct {
	net.Listener
	mu    sync.Mutex
	count int
	gone  chan struct{} // not nil while somebody waits: closed when the last one goes
}

func (j *joiners) Accept() (net.Conn, error) {
	c, err := j.Listener.Accept()
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count++
	return &joined{Conn: c, leave: sync.OnceFunc(j.leave)}, nil
}

func (j *joiners) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count--
	if j.count == 0 && j.gone != nil {
		close(j.gone)
		j.gone = nil
	}
}

// wait returns when nobody is connected.
func (j *joiners) wait(notice func(string)) {
	j.mu.Lock()
	if j.count == 0 {
		j.mu.Unlock()
		return
	}
	gone := make(chan struct{})
	j.gone = gone
	told := time.AfterFunc(silentUntil, func() { notify(notice, "done; waiting for "+j.others()+" that shares this engine") })
	j.mu.Unlock()
	<-gone
	told.Stop()
}

func (j *joiners) others() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.count == 1 {
		return "another build"
	}
	return strconv.Itoa(j.count) + " other builds"
}

type joined struct {
	net.Conn
	leave func()
}

func (c *joined) Close() error {
	c.leave()
	return c.Conn.Close()
}

// A socket's path is limited to 108 bytes, a state folder's is not: the kernel is
// given a short path through an open folder.
func shortSocketPath(dir, socket string) (string, func(), error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	release := func() { _ = f.Close() } // only a handle
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socket), release, nil
}

// listen makes the socket in dir. Whoever may connect may do all that this user may,
// so nobody else can: the folder and the socket are the user's alone.
func listen(dir, socket string) (net.Listener, error) {
	others, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, left := range others {
		err = errors.Join(err, os.Remove(left))
	}
	if err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	path, release, err := shortSocketPath(dir, socket)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path is gone by then, and the next engine replaces the socket
	if err := os.Chmod(filepath.Join(dir, socket), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func dial(ctx context.Context, dir, socket string) (net.Conn, error) {
	path, release, err := shortSocketPath(dir, socket)
	if err != nil {
		return nil, err
	}
	defer release()
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

func notify(notice func(string), msg string) {
	if notice != nil {
		notice(msg)
	}
}
