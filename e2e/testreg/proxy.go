package testreg

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Line is what lies between a client and a registry: each connection has its
// own, and each direction of it.
type Line struct {
	Latency time.Duration // one way
	Rate    int           // bytes a second; 0: as fast as it goes
}

// Proxy passes TCP connections on over a Line.
type Proxy struct {
	listener net.Listener
	target   string
	line     Line
	close    context.CancelFunc
	group    sync.WaitGroup

	mu        sync.Mutex
	now, most int
}

// chunk is what is delayed as one; small enough that a Line looks smooth.
const chunk = 32 << 10

// StartProxy listens on a free port of the loopback interface until Close, or
// until ctx ends.
func StartProxy(ctx context.Context, target string, line Line) (*Proxy, error) {
	ctx, cancel := context.WithCancel(ctx)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, err
	}
	p := &Proxy{listener: l, target: target, line: line, close: cancel}
	p.group.Go(func() { p.serve(ctx) })
	return p, nil
}

// Addr is "127.0.0.1:PORT".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Most is how many connections there were at one time.
func (p *Proxy) Most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// Close ends the proxy and cuts its connections.
func (p *Proxy) Close() {
	p.close()
	_ = p.listener.Close()
	p.group.Wait()
}

func (p *Proxy) serve(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.connect(ctx, client) })
	}
}

func (p *Proxy) connect(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	p.count(1)
	defer p.count(-1)
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { p.carry(server, client) })
	both.Go(func() { p.carry(client, server) })
	both.Wait()
}

func (p *Proxy) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now += n
	p.most = max(p.most, p.now)
}

// parcel is bytes that are on their way until due.
type parcel struct {
	data []byte
	due  time.Time
}

// carry brings what is read from one end to the other: a token bucket that holds
// one chunk decides when bytes leave, and a queue keeps them until they arrive.
// An end of file arrives as late as everything else, and an error cuts both ways.
func (p *Proxy) carry(to, from net.Conn) {
	way := make(chan parcel, 1024)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		for x := range way {
			time.Sleep(time.Until(x.due))
			if _, err := to.Write(x.data); err != nil {
				_ = from.Close() // nobody wants the rest
				break
			}
		}
		for range way { // so that the reader does not hang
		}
	})
	var free time.Time // when the line can take the next byte
	var err error
	for err == nil {
		buf := make([]byte, chunk)
		var n int
		n, err = from.Read(buf)
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		if p.line.Rate > 0 {
			free = free.Add(time.Duration(n) * time.Second / time.Duration(p.line.Rate))
		}
		way <- parcel{buf[:n], free.Add(p.line.Latency)}
		time.Sleep(time.Until(free))
	}
	close(way)
	arriving.Wait()
	if half, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
		_ = half.CloseWrite()
		return
	}
	_ = to.Close()
}
