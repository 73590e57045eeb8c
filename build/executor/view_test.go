//go:build linux

package executor_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// TestProcess checks what a step's process is like.
func TestProcess(t *testing.T) {
	b := newBench(t)
	b.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n")
	b.write("etc/group", "root:x:0:\nada:x:1001:\ndocker:x:77:ada\nother:x:78:\n")
	t.Setenv("OTEL_EXPORTER", "leak")
	t.Setenv("TRACEPARENT", "leak")
	for _, tt := range []struct {
		name, script, want string
		meta               bkexecutor.Meta
		ids                bool // needs more ids than one
	}{
		{name: "environment", script: "env -0 | sort -z | tr '\\0' ' '", want: "A=2 HOME=/root PATH=/bin PWD=/ SHLVL=1", meta: bkexecutor.Meta{Env: []string{"A=1", "PATH=/bin", "A=2"}}},
		{name: "own HOME", script: "echo $HOME", want: "/x", meta: bkexecutor.Meta{Env: []string{"HOME=/x", "PATH=/bin"}}},
		{name: "no TERM", script: "echo ${TERM-unset}", want: "unset"},
		{name: "user by name", script: "id -u; id -g; id -G; echo $HOME", want: "1000 1001 1001 77 /home/ada", meta: bkexecutor.Meta{User: "ada"}, ids: true},
		{name: "user by id", script: "id -u; id -g; id -G; echo $HOME", want: "1000 1001 1001 77 /home/ada", meta: bkexecutor.Meta{User: "1000"}, ids: true},
		{name: "user and group", script: "id -u; id -g; id -G; echo $HOME", want: "1000 78 78 /home/ada", meta: bkexecutor.Meta{User: "ada:other"}, ids: true},
		{name: "numbers only", script: "id -u; id -g; id -G; echo $HOME", want: "4242 4343 4343 /", meta: bkexecutor.Meta{User: "4242:4343"}, ids: true},
		{name: "no capabilities", script: "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | tr -d '0\\n\\t'", want: "CapInh:CapPrm:CapEff:CapAmb:", meta: bkexecutor.Meta{User: "ada"}, ids: true},
		{name: "root's capabilities", script: "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2", want: "0000000000000000 00000000a80425fb 00000000a80425fb 00000000a80425fb 0000000000000000"},
		{name: "filtered", script: "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2", want: "0 2"},
		{name: "signals at their defaults", script: "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status | cut -f2", want: "0000000000000000 0000000000000000 0000000000000000"},
		{name: "umask", script: "umask", want: "0022"},
		{name: "stdin at its end", script: "read x && echo more || echo end", want: "end"},
		{name: "no other files", script: "ls /proc/self/fd", want: "0 1 2 3"}, // 3 is ls's own
		{name: "host name", script: "hostname; grep -c box1 /etc/hosts", want: "box1 1", meta: bkexecutor.Meta{Hostname: "box1"}},
		{name: "extra hosts", script: "grep 10.1 /etc/hosts", want: "10.1.2.3\tdb", meta: bkexecutor.Meta{ExtraHosts: []bkexecutor.HostIP{{Host: "db", IP: net.IPv4(10, 1, 2, 3)}}}},
		{name: "open files", script: "ulimit -Sn; ulimit -Hn", want: "123 456", meta: bkexecutor.Meta{Ulimit: []*pb.Ulimit{{Name: "nofile", Soft: 123, Hard: 456}}}},
		{name: "working directory", script: "pwd; stat -c '%a %u' .", want: "/made/here 755 0", meta: bkexecutor.Meta{Cwd: "/made/here"}},
		{name: "program by PATH", want: "hi", meta: bkexecutor.Meta{Args: []string{"echo", "hi"}}},
		{name: "loopback only", script: "ls /sys/class/net 2>/dev/null || grep -o 'lo:' /proc/net/dev; ping -c1 -W1 127.0.0.1 >/dev/null && echo up", want: "up", meta: bkexecutor.Meta{NetMode: pb.NetMode_NONE}},
		{name: "first process", script: "echo $$", want: "1"},
		{name: "devices", script: "head -c3 /dev/zero | od -An -tx1; echo x > /dev/null; head -c1 /dev/urandom | wc -c; ls -d /dev/pts/ptmx /dev/shm /dev/mqueue", want: "00 00 00 1 /dev/mqueue /dev/pts/ptmx /dev/shm"},
		{name: "shared memory", script: "df -m /dev/shm | tail -1 | awk '{print $2}'; stat -c %a /dev/shm", want: "64 1777"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			switch {
			case tt.ids && b.mode == "single":
				t.Skip("there is one id only")
			case tt.name == "first process" && (b.mode == "hostpid" || b.mode == "masked"), tt.name == "filtered" && b.mode == "single":
				t.Skip("not so in this mode")
			}
			if tt.script != "" {
				tt.meta.Args = steptest.Shell(tt.script)
			}
			r := b.run(t.Context(), tt.meta)
			if r.failure != nil {
				t.Fatalf("%v: %s", r.failure, r.err)
			}
			got := strings.Join(strings.FieldsFunc(r.out, func(c rune) bool { return c == '\n' || c == ' ' }), " ")
			if tt.name == "loopback only" {
				got = got[max(0, strings.LastIndex(got, "up")):]
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestLeftovers checks that a step leaves only what it has made itself.
func TestLeftovers(t *testing.T) {
	b := newBench(t)
	src := t.TempDir()
	secret := filepath.Join(src, "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o400); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	mounts := []bkexecutor.Mount{
		{Dest: "/run/secrets/one", Src: steptest.Dir(secret), Readonly: true},
		{Dest: "/var/cache/x/y", Src: steptest.Dir(cache)},
		{Dest: "/kept/mnt", Src: steptest.Dir(cache)},
	}
	if got := b.sh("cat /run/secrets/one; stat -c ' %a' /run/secrets/one; echo 1 > /var/cache/x/y/f; echo 1 > /kept/beside", mounts...); got != "s3cret 400" {
		t.Errorf("secret: %q", got)
	}
	if got := b.tree(); got != "/kept /kept/beside" {
		t.Errorf("a scratch image is left with %q", got)
	}
	if _, err := os.Stat(filepath.Join(cache, "f")); err != nil {
		t.Error(err)
	}

	// Names that are links into what does not exist yet, absolute and relative.
	for name, target := range map[string]string{"etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf", "etc/hosts": "../data/hosts"} {
		if err := os.MkdirAll(filepath.Join(b.rootfs, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(b.rootfs, name)); err != nil {
			t.Fatal(err)
		}
	}
	before := b.tree()
	if got := b.sh("grep -c localhost /etc/hosts; test -s /etc/resolv.conf && echo resolv; echo x >> /etc/hosts || echo read-only"); got != "2\nresolv\nread-only" {
		t.Errorf("behind links: %q", got)
	}
	if got := b.tree(); got != before {
		t.Errorf("behind links there is left %q, want %q", got, before)
	}
}

// TestApt checks that apt is told to stay root where it can't be anybody else, and not elsewhere.
func TestApt(t *testing.T) {
	b := newBench(t)
	b.write("etc/apt/apt.conf.d/01auto", "")
	before, want := b.tree(), "01auto"
	if b.mode == "single" {
		want = "01auto\n99wherry-one-id\nAPT::Sandbox::User \"root\";"
	}
	const script = "ls /etc/apt/apt.conf.d 2>/dev/null; cat /etc/apt/apt.conf.d/* 2>/dev/null; true"
	if got := b.sh(script); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := b.sh(script, bkexecutor.Mount{Dest: "/etc/apt", Src: steptest.Dir(t.TempDir()), Readonly: true}, bkexecutor.Mount{Dest: "/x", Src: steptest.Dir(t.TempDir())}); got != "" {
		t.Errorf("below a mount of the step: %q", got)
	}
	if got := b.tree(); got != before {
		t.Errorf("left %q, want %q", got, before)
	}
}

// TestMounts checks order, protection and kinds of mounts.
func TestMounts(t *testing.T) {
	b := newBench(t)
	outer, inner := t.TempDir(), t.TempDir()
	for _, d := range []string{outer, inner} {
		if err := os.WriteFile(filepath.Join(d, "f"), []byte(filepath.Base(d)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(t.TempDir(), "ssh")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	// The inner one is named first; its target only exists in the outer one's source once it is made there.
	nested := []bkexecutor.Mount{{Dest: "/m/sub", Src: steptest.Dir(inner), Readonly: true}, {Dest: "/m", Src: steptest.Dir(outer)}}
	if got, want := b.sh("cat /m/f; echo; cat /m/sub/f; echo; touch /m/new && echo rw; touch /m/sub/new 2>/dev/null || echo ro", nested...), filepath.Base(outer)+"\n"+filepath.Base(inner)+"\nrw\nro"; got != want {
		t.Errorf("nested: %q, want %q", got, want)
	}
	tmpfs := steptest.Source(mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=2097152"}})
	if got := b.sh("df -k /t | tail -1 | awk '{print $2}'; touch /t/x && echo ok", bkexecutor.Mount{Dest: "/t", Src: tmpfs}); got != "2048\nok" {
		t.Errorf("tmpfs: %q", got)
	}
	if got := b.sh("test -S /run/ssh/agent && echo socket", bkexecutor.Mount{Dest: "/run/ssh/agent", Src: steptest.Dir(socket)}); got != "socket" {
		t.Errorf("socket: %q", got)
	}
	if got := b.sh("ls /m", bkexecutor.Mount{Dest: "/m", Src: steptest.Dir(outer), Selector: "sub"}); got != "" {
		t.Errorf("selected folder: %q", got)
	}
	r := b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("touch /x || echo ro; cat /etc/hosts >/dev/null && echo hosts"), ReadonlyRootFS: true})
	if r.failure != nil || r.out != "ro\nhosts\n" {
		t.Errorf("read-only root: %q %v", r.out, r.failure)
	}
	if got := b.tree(); got != "" {
		t.Errorf("left: %q", got)
	}
}
