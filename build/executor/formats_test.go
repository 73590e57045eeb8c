//go:build linux

package executor_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// strange begins the programs of a made-up machine, which a shell emulates: to the shell it is an assignment.
const strange = "MACHINE=strange\n"

// newStrangeBench is a bench whose kernel runs programs of that machine.
func newStrangeBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	shell := filepath.Join(t.TempDir(), "sh") // busybox goes by its name
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(shell, data, 0o755); err != nil {
		t.Fatal(err)
	}
	formats := []string{"|strange|M|0|MACHINE=strange||" + shell + "|FC"}
	if err := executor.FormatsWork(t.Context(), b.mode == "hostpid" || b.mode == "masked"); err != nil {
		t.Skipf("this kernel has one binfmt_misc only: %v", err)
	}
	own, ok := executor.WithFormats(b.exec, formats)
	if !ok {
		t.Fatal("no executor of this package")
	}
	b.exec = own
	return b
}

// program makes a program of the strange machine.
func (b *bench) program(name, script string) {
	b.t.Helper()
	b.write(name, strange+script)
	if err := os.Chmod(filepath.Join(b.rootfs, name), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// TestFormats checks that a step runs what the kernel knows for it alone, and that it is like others otherwise.
func TestFormats(t *testing.T) {
	b := newStrangeBench(t)
	b.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n")
	b.write("etc/group", "root:x:0:\nada:x:1001:\ndocker:x:77:ada\n")
	b.program("bin/hello", "echo hello from $MACHINE, $*\n")
	b.program("bin/outer", "hello nested; (exec hello child)\n")
	b.write("bin/script", "#!/bin/hello -x\n")
	if err := os.Chmod(filepath.Join(b.rootfs, "bin/script"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, script, want string
		meta               bkexecutor.Meta
		ids                bool
	}{
		{name: "first program", want: "hello from strange, world", meta: bkexecutor.Meta{Args: []string{"hello", "world"}}},
		{name: "nested", script: "outer", want: "hello from strange, nested hello from strange, child"},
		{name: "shebang", script: "script y", want: "hello from strange, -x /bin/script y"},
		{name: "user", script: "hello $(id -u) $(id -g) $(id -G) $HOME", want: "hello from strange, 1000 1001 1001 77 /home/ada", meta: bkexecutor.Meta{User: "ada"}, ids: true},
		{name: "no other formats", script: "ls /proc/sys/fs/binfmt_misc; mount | grep binfmt || echo none", want: "none"},
		{name: "no mount", script: "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null || echo refused", want: "refused"},
		{name: "root's capabilities", script: "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2", want: "00000000a80425fb 00000000a80425fb 00000000a80425fb 0000000000000000"},
		{name: "filtered", script: "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2", want: "0 2"},
		{name: "no other files", script: "ls /proc/self/fd", want: "0 1 2 3"}, // 3 is ls's own
		{name: "first process", script: "echo $$", want: "1"},
		{name: "owners", script: "touch /f; chown 1000:1001 /f; chmod 4755 /f; stat -c '%u %g %a' /f; rm /f", want: "1000 1001 4755", ids: true},
		{name: "devices", script: "head -c3 /dev/zero | od -An -tx1; echo x > /dev/null; ls -d /dev/pts/ptmx /dev/shm /dev/mqueue", want: "00 00 00 /dev/mqueue /dev/pts/ptmx /dev/shm"},
		{name: "no network", script: "hello $(ls /sys/class/net 2>/dev/null || echo lo)", want: "hello from strange, lo", meta: bkexecutor.Meta{NetMode: pb.NetMode_NONE}},
		{name: "masked", script: "ls -A /proc/scsi 2>/dev/null; touch /proc/sys/kernel/x 2>&1 | grep -c -i 'read-only\\|permission\\|no such'", want: "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			switch {
			case tt.ids && b.mode == "single":
				t.Skip("there is one id only")
			case tt.name == "first process" && (b.mode == "hostpid" || b.mode == "masked"), tt.name == "filtered" && b.mode == "single":
				t.Skip("not so in this mode")
			}
			if tt.meta.Args == nil {
				tt.meta.Args = steptest.Shell(tt.script)
			}
			r := b.run(t.Context(), tt.meta)
			if got := strings.Join(strings.Fields(r.out), " "); got != tt.want || r.failure != nil {
				t.Errorf("got %q, want %q: %v %s", got, tt.want, r.failure, r.err)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(b.rootfs, "f")); err == nil {
		t.Error("f is still there")
	}
	other := newBench(t)
	other.program("bin/hello", "echo hello\n")
	if r := other.run(t.Context(), bkexecutor.Meta{Args: []string{"/bin/hello"}}); r.failure == nil {
		t.Errorf("a step without the formats ran it: %q", r.out)
	}
}
