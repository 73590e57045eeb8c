package main

import (
	"context"
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

// copyMegabytes are the layers of the image that is copied: 500 MB.
var copyMegabytes = []int64{180, 140, 100, 80}

// copyLine is a way to a registry that is slower than what is at its ends: on one
// machine a copy takes the time of the processors that pull and push take together.
var copyLine = testreg.Line{Latency: 10 * time.Millisecond, Rate: 60_000_000}

// copies brings an image from one of Debian's registries to another one, in turns
// with what pulls it from the one and pushes it to the other: a copy lasts as long
// as the slower of these, if both go on at the same time. Then the same over lines.
func (b *bench) copies(ctx context.Context) error {
	layout := filepath.Join(b.dir, "tocopy")
	if err := writeImage(layout, "1", copyMegabytes); err != nil {
		return err
	}
	from, err := b.startRegistry(ctx, "from")
	if err != nil {
		return err
	}
	defer from.stop()
	to, err := b.startRegistry(ctx, "to")
	if err != nil {
		return err
	}
	defer to.stop()
	if _, err := b.time(ctx, contender{args: []string{b.wherry, "copy", "-q", "oci:" + layout + ":1", from.addr + "/app:1"}}); err != nil {
		return err
	}
	if err := b.copyRace(ctx, "copy 500 MB, 4 layers", b.copyContenders(ctx, layout, from.addr, to.addr, to.empty)); err != nil {
		return err
	}
	farFrom, err := testreg.StartProxy(ctx, from.addr, copyLine)
	if err != nil {
		return err
	}
	defer farFrom.Close()
	farTo, err := testreg.StartProxy(ctx, to.addr, copyLine)
	if err != nil {
		return err
	}
	defer farTo.Close()
	b.runs = min(b.runs, 3) // they last long, and differ little
	return b.copyRace(ctx, "copy 500 MB, 10 ms, 60 MB/s", b.copyContenders(ctx, layout, farFrom.Addr(), farTo.Addr(), to.empty))
}

func (b *bench) copyContenders(ctx context.Context, layout, from, to string, empty func() error) (list []contender) {
	for _, p := range b.copiers(ctx) {
		list = append(list,
			contender{name: p.name + ", copy", args: p.copy(from, to), ready: empty},
			contender{name: p.name + ", pull", args: p.pull(from, filepath.Join(b.dir, "copied")), ready: b.forget("copied")},
			contender{name: p.name + ", push", args: p.push(layout, to), ready: empty})
	}
	return list
}

// copyRace prints the copies beside the slower of the fastest pull and the fastest
// push of all peers.
func (b *bench) copyRace(ctx context.Context, what string, list []contender) error {
	r := newRace(what, len(list))
	for range b.runs {
		for i, c := range list {
			if err := r.run(ctx, b, i, c); err != nil {
				return err
			}
		}
	}
	best := map[string]time.Duration{}
	for i, name := range r.names {
		who, what, _ := strings.Cut(name, ", ")
		if who == "wherry" {
			continue
		}
		if took := median(r.times[i]); best[what] == 0 || took < best[what] {
			best[what] = took
		}
	}
	slower := max(best["pull"], best["push"])
	r.table(func(i int) float64 { return float64(median(r.times[i])) / float64(slower) })
	fmt.Printf("%-34s %-32s %10s\n", r.what, "the slower of pull and push", show(slower))
	return nil
}

func (b *bench) forget(name string) func() error {
	return func() error { return os.RemoveAll(filepath.Join(b.dir, name)) }
}

// copyPeer is how a program is called.
type copyPeer struct {
	name string
	copy func(from, to string) []string
	pull func(from, dir string) []string
	push func(layout, to string) []string
}

func (b *bench) copiers(ctx context.Context) []copyPeer {
	list := []copyPeer{{
		name: "wherry",
		copy: func(from, to string) []string {
			return []string{b.wherry, "copy", "-q", from + "/app:1", to + "/app:1"}
		},
		pull: func(from, dir string) []string {
			return []string{b.wherry, "copy", "-q", from + "/app:1", "oci:" + dir}
		},
		push: func(layout, to string) []string {
			return []string{b.wherry, "copy", "-q", "oci:" + layout + ":1", to + "/app:1"}
		},
	}}
	for _, peer := range []struct {
		find func() (string, error)
		like func(program string) copyPeer
	}{
		{func() (string, error) { return tool(ctx, "github.com/google/go-containerregistry/cmd/crane", "") }, cranePeer},
		{func() (string, error) { return tool(ctx, "github.com/regclient/regclient/cmd/regctl", "v0.11.7") }, regctlPeer},
		{func() (string, error) { return exec.LookPath("skopeo") }, skopeoPeer},
		{func() (string, error) { return tool(ctx, "oras.land/oras/cmd/oras", "v1.3.6") }, orasPeer},
	} {
		program, err := peer.find()
		if err != nil {
			fmt.Fprintln(os.Stderr, "without a peer:", err)
			continue
		}
		list = append(list, peer.like(program))
	}
	return list
}

func cranePeer(crane string) copyPeer {
	return copyPeer{
		name: "crane",
		copy: func(from, to string) []string { return []string{crane, "copy", from + "/app:1", to + "/app:1"} },
		pull: func(from, dir string) []string { return []string{crane, "pull", "--format=oci", from + "/app:1", dir} },
		push: func(layout, to string) []string { return []string{crane, "push", layout, to + "/app:1"} },
	}
}

func regctlPeer(regctl string) copyPeer {
	plain := func(hosts ...string) []string {
		args := []string{regctl}
		for _, host := range hosts {
			args = append(args, "--host", "reg="+host+",tls=disabled")
		}
		return append(args, "image", "copy")
	}
	return copyPeer{
		name: "regctl",
		copy: func(from, to string) []string { return append(plain(from, to), from+"/app:1", to+"/app:1") },
		pull: func(from, dir string) []string { return append(plain(from), from+"/app:1", "ocidir://"+dir+":1") },
		push: func(layout, to string) []string { return append(plain(to), "ocidir://"+layout+":1", to+"/app:1") },
	}
}

func skopeoPeer(skopeo string) copyPeer {
	args := func(from, to string) []string {
		return []string{skopeo, "--insecure-policy", "copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", from, to}
	}
	return copyPeer{
		name: "skopeo",
		copy: func(from, to string) []string { return args("docker://"+from+"/app:1", "docker://"+to+"/app:1") },
		pull: func(from, dir string) []string { return args("docker://"+from+"/app:1", "oci:"+dir+":1") },
		push: func(layout, to string) []string { return args("oci:"+layout+":1", "docker://"+to+"/app:1") },
	}
}

func orasPeer(oras string) copyPeer {
	args := func(more ...string) []string { return append([]string{oras, "copy", "--no-tty"}, more...) }
	return copyPeer{
		name: "oras",
		copy: func(from, to string) []string {
			return args("--from-plain-http", "--to-plain-http", from+"/app:1", to+"/app:1")
		},
		pull: func(from, dir string) []string {
			return args("--from-plain-http", from+"/app:1", "--to-oci-layout", dir+":1")
		},
		push: func(layout, to string) []string {
			return args("--from-oci-layout", layout+":1", "--to-plain-http", to+"/app:1")
		},
	}
}

// debianRegistry is a docker-registry with a folder of its own.
type debianRegistry struct {
	addr, dir string
	stop      func()
}

// empty takes all repositories and blobs away. The registry keeps nothing in memory.
func (r *debianRegistry) empty() error { return os.RemoveAll(filepath.Join(r.dir, "docker")) }

func (b *bench) startRegistry(ctx context.Context, name string) (*debianRegistry, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("install docker-registry, which copies go to: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &debianRegistry{addr: l.Addr().String(), dir: filepath.Join(b.dir, "registry-"+name)}
	if err := l.Close(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(b.dir, name+".yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", r.dir, r.addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "serve", config)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return r, r.wait(ctx)
}

// wait until the registry answers.
func (r *debianRegistry) wait(ctx context.Context) error {
	for range 200 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/v2/", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return resp.Body.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.stop()
	return fmt.Errorf("the registry %s does not answer", r.addr)
}
