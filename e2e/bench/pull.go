package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-oci/wherry/e2e/testreg"
)

// pullMegabytes are the layers of the image that is pulled: 737 MB.
var pullMegabytes = []int64{240, 200, 170, 127}

// slowLine is a way to a registry as it often is: far, and with a limit per connection.
var slowLine = testreg.Line{Latency: 50 * time.Millisecond, Rate: 20_000_000}

// pulls brings an image from a registry in another process into a layout: at
// once, from afar, a second time, and one with a layer of 5 GB.
func (b *bench) pulls(ctx context.Context) error {
	source := filepath.Join(b.dir, "source")
	if err := writeImage(source, "1", pullMegabytes); err != nil {
		return err
	}
	if err := writeHoleImage(source, "hole", 5<<30); err != nil {
		return err
	}
	addr, stop, err := serve(ctx, source)
	if err != nil {
		return err
	}
	defer stop()
	far, err := testreg.StartProxy(ctx, addr, slowLine)
	if err != nil {
		return err
	}
	defer far.Close()
	peers := b.pullers(ctx)
	if err := b.compare(ctx, "pull 737 MB, 4 layers", b.pullContenders(peers, addr)...); err != nil {
		return err
	}
	b.runs = min(b.runs, 2) // they last long, and differ little
	if err := b.compare(ctx, "pull 737 MB, 50 ms, 20 MB/s", b.pullContenders(peers, far.Addr())...); err != nil {
		return err
	}
	b.runs = 7
	store := filepath.Join(b.dir, "pulled")
	again := []string{b.wherry, "--store", store, "pull", "-q", addr + "/app:1"}
	if _, err := b.time(ctx, contender{args: again}); err != nil {
		return err
	}
	if err := b.compare(ctx, "pull what is there", contender{name: "wherry pull", args: again}); err != nil {
		return err
	}
	b.runs = 1
	empty := func() error { return os.RemoveAll(store) }
	return b.compare(ctx, "pull a layer of 5 GB", contender{name: "wherry pull", ready: empty, args: []string{
		b.wherry, "--store", store, "pull", "-q", addr + "/app:hole",
	}})
}

// puller is how a program is called to pull an image into an empty folder.
type puller struct {
	name string
	args func(ref, dir string) []string
}

// pullers are wherry and the peers that are there or can be compiled.
func (b *bench) pullers(ctx context.Context) []puller {
	list := []puller{{"wherry pull", func(ref, dir string) []string {
		return []string{b.wherry, "--store", dir, "pull", "-q", ref}
	}}}
	for _, peer := range []struct {
		name string
		find func() (string, error)
		args func(ref, dir string) []string
	}{
		{"skopeo copy", func() (string, error) { return exec.LookPath("skopeo") }, func(ref, dir string) []string {
			return []string{"--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://" + ref, "oci:" + dir + ":1"}
		}},
		{"regctl image copy", func() (string, error) { return tool(ctx, "github.com/regclient/regclient/cmd/regctl", "v0.11.7") }, func(ref, dir string) []string {
			host, _, _ := strings.Cut(ref, "/")
			return []string{"--host", "reg=" + host + ",tls=disabled", "image", "copy", ref, "ocidir://" + dir + ":1"}
		}},
		{"oras copy", func() (string, error) { return tool(ctx, "oras.land/oras/cmd/oras", "v1.3.6") }, func(ref, dir string) []string {
			return []string{"copy", "--no-tty", "--from-plain-http", ref, "--to-oci-layout", dir + ":1"}
		}},
		{"crane pull", func() (string, error) { return tool(ctx, "github.com/google/go-containerregistry/cmd/crane", "") }, func(ref, dir string) []string {
			return []string{"pull", "--format=oci", ref, dir}
		}},
	} {
		program, err := peer.find()
		if err != nil {
			fmt.Fprintf(os.Stderr, "without %s: %v\n", peer.name, err)
			continue
		}
		list = append(list, puller{peer.name, func(ref, dir string) []string { return append([]string{program}, peer.args(ref, dir)...) }})
	}
	return list
}

func (b *bench) pullContenders(from []puller, addr string) []contender {
	dir := filepath.Join(b.dir, "pulled")
	var list []contender
	for _, p := range from {
		list = append(list, contender{
			name: p.name, args: p.args(addr+"/app:1", dir),
			ready: func() error { return os.RemoveAll(dir) },
		})
	}
	return list
}

// serve has a process of its own serve a layout; it is this program once more.
func serve(ctx context.Context, dir string) (addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-serve", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start a registry: %w", err)
	}
	return strings.TrimSpace(addr), stop, nil
}

// serveLayout is that process.
func serveLayout(ctx context.Context, dir string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	server := &http.Server{Handler: testreg.ServeLayout(dir), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
