package chroot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	bkexecutor "github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// TestSight checks what a step sees of itself and the machine.
func TestSight(t *testing.T) {
	b := newBench(t)
	b.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n")
	b.write("etc/group", "root:x:0:\nada:x:1001:\ndocker:x:77:ada\n")
	if err := os.Symlink("/dev/stdout", b.rootfs+"/log"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, script, want string
		meta               bkexecutor.Meta
	}{
		{name: "environment", script: "env | sort", want: "A=2 HOME=/root PATH=/bin PWD=/ SHLVL=1", meta: bkexecutor.Meta{Env: []string{"A=1", "PATH=/bin", "A=2"}}},
		{name: "user", script: "id -u; id -g; id -G; echo $HOME", want: "1000 1001 1001 77 /home/ada", meta: bkexecutor.Meta{User: "ada"}},
		{name: "capabilities", script: "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2", want: "00000000a00005fb 00000000a00005fb 00000000a00005fb"},
		{name: "a user's capabilities", script: "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | tr -d '0\\n\\t'", want: "CapInh:CapPrm:CapEff:CapAmb:", meta: bkexecutor.Meta{User: "ada"}},
		{name: "no new privileges", script: "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2", want: "1 2"},
		{name: "signals at their defaults", script: "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status | cut -f2", want: "0000000000000000 0000000000000000 0000000000000000"},
		{name: "umask", script: "umask", want: "0022"},
		{name: "stdin at its end", script: "read x && echo more || echo end", want: "end"},
		{name: "descriptors", script: "ls /proc/self/fd; cd /proc/self/fd && ls", want: "0 1 2 0 1 2"},
		{name: "streams", script: "echo a > /dev/stdout; echo b > /log; echo c | cat /dev/stdin; echo d | cat /dev/fd/0; echo e | cat /proc/self/fd/0; echo f >> /dev/fd/1", want: "a b c d e f"},
		{name: "links", script: "readlink /proc/self/exe; readlink /proc/self/cwd; readlink /proc/self/root; test -L /proc/self && echo link; test $(readlink /proc/self) -gt 1 && echo number", want: "/bin/busybox / / link number"},
		{name: "machine", script: "grep -c ^processor /proc/cpuinfo | grep -c .; grep -c MemTotal /proc/meminfo; cat /proc/sys/kernel/ostype; head -c4 /proc/version", want: "1 1 Linux Linu"},
		{name: "own processes only", script: "sleep 5 & until grep -q sleep /proc/$!/comm; do :; done; for p in /proc/[0-9]*; do test -e $p/stat && echo $(cat $p/comm); done > /l; sort /l; rm /l", want: "sh sleep"},
		{name: "first process", script: "cat /proc/1/comm; cat /proc/2/comm 2>/dev/null || echo none; test /proc/1/root/. -ef / && echo same", want: "sh none same"},
		{name: "a thread", script: "cat /proc/thread-self/comm; ls /proc/self/task | wc -l", want: "cat 1"},
		{name: "mounts", script: "cut -d' ' -f2 /proc/mounts; df / | tail -1 | grep -c /", want: "/ /proc /dev /dev/pts 1"},
		{name: "through links", script: "cd /tmp 2>/dev/null || mkdir /tmp && cd /tmp; echo x > f; cat /proc/self/cwd/f /proc/self/root/tmp/f /proc/self/root/proc/self/cwd/f; cat /proc/self/../self/comm; rm -r /tmp", want: "x x x cat"},
		{name: "executed by link", script: "/proc/self/exe 2>&1 | grep -o '^exe: applet'", want: "exe: applet"},
		{name: "answers that wait", script: "mkfifo /f; for i in 1 2 3 4 5 6; do cat /proc/self/root/f > /dev/null & done; sleep 0.2; cat /proc/self/comm; rm /f", want: "cat"},
		{name: "read-only", script: "(echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null || echo no; echo 500 > /proc/self/oom_score_adj && cat /proc/self/oom_score_adj", want: "no 500"},
		{name: "hidden", script: "cat /proc/kcore /proc/keys /proc/sysrq-trigger 2>/dev/null | wc -c; ls /proc | grep -cE '^(kcore|keys|kmsg)$' || true", want: "0 0"},
		{name: "no names of what can't be seen", script: "ls /proc/self/map_files | wc -l; find /proc/self/ -maxdepth 2 -path '*map_files*' && echo found", want: "0 /proc/self/map_files found"},
		{name: "devices", script: "head -c3 /dev/zero | od -An -tx1; echo x > /dev/null; head -c1 /dev/urandom | wc -c; test -c /dev/null && test -c /dev/tty && echo dev; (: < /dev/tty) 2>/dev/null || echo none; (echo x > /dev/full) 2>/dev/null || echo full", want: "00 00 00 1 dev none full"},
		{name: "as a user", script: "cat /proc/self/comm; readlink /proc/self/exe; echo a > /dev/stdout; echo b | cat /dev/stdin; ls /proc/self/fd", want: "cat /bin/busybox a b 0 1 2", meta: bkexecutor.Meta{User: "ada"}},
		{name: "host name", script: "grep -c box1 /etc/hosts; test -s /etc/resolv.conf && echo resolv", want: "1 resolv", meta: bkexecutor.Meta{Hostname: "box1"}},
		{name: "open files", script: "ulimit -Sn; ulimit -Hn", want: "123 456", meta: bkexecutor.Meta{Ulimit: []*pb.Ulimit{{Name: "nofile", Soft: 123, Hard: 456}}}},
		{name: "working directory", script: "pwd; stat -c '%a %u' .; rmdir /made/here /made", want: "/made/here 755 0", meta: bkexecutor.Meta{Cwd: "/made/here"}},
		{name: "no network", script: "nc -w1 127.0.0.1 9 2>&1 | grep -o unreachable; nc -lU /s & sleep 0.1; kill $!; rm -f /s", want: "unreachable", meta: bkexecutor.Meta{NetMode: pb.NetMode_NONE}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.meta.Args = steptest.Shell(tt.script)
			r := b.run(t.Context(), tt.meta)
			if got := strings.Join(strings.Fields(r.out), " "); r.failure != nil || got != tt.want {
				t.Errorf("%s\ngot  %q\nwant %q\n%v %s", tt.script, got, tt.want, r.failure, r.err)
			}
		})
	}
	if got := b.tree(); got != "/etc /etc/group /etc/passwd /log" {
		t.Errorf("left: %s", got)
	}
}

// TestEnd checks exit codes and the errors of steps that can't start.
func TestEnd(t *testing.T) {
	b := newBench(t)
	b.write("etc/noexec", "")
	for _, tt := range []struct {
		name  string
		meta  bkexecutor.Meta
		code  int // -1: a SetupError, -2: another error
		text  string
		cause error
	}{
		{name: "zero", meta: bkexecutor.Meta{Args: steptest.Shell("true")}},
		{name: "code", meta: bkexecutor.Meta{Args: steptest.Shell("exit 3")}, code: 3},
		{name: "allowed code", meta: bkexecutor.Meta{Args: steptest.Shell("exit 3"), ValidExitCodes: []int{3}}},
		{name: "signal", meta: bkexecutor.Meta{Args: steptest.Shell("sh -c 'kill -11 $$'; exit $?")}, code: 128 + 11},
		{name: "no such program", meta: bkexecutor.Meta{Args: []string{"/nope"}}, code: -1, text: `exec "/nope": no such file or directory`, cause: fs.ErrNotExist},
		{name: "not in PATH", meta: bkexecutor.Meta{Args: []string{"nope"}}, code: -1, text: `exec "nope": not found in $PATH`, cause: fs.ErrNotExist},
		{name: "not executable", meta: bkexecutor.Meta{Args: []string{"/etc/noexec"}}, code: -1, text: `exec "/etc/noexec": permission denied`, cause: fs.ErrPermission},
		{name: "folder is a file", meta: bkexecutor.Meta{Args: steptest.Shell("true"), Cwd: "/etc/noexec"}, code: -1, text: `make working directory "/etc/noexec": not a directory`},
		{name: "no such user", meta: bkexecutor.Meta{Args: steptest.Shell("true"), User: "nobody-knows"}, code: -2, text: `find user "nobody-knows"`},
		{name: "insecure", meta: bkexecutor.Meta{Args: steptest.Shell("true"), SecurityMode: pb.SecurityMode_INSECURE}, code: -2, text: "RUN --security=insecure is not possible"},
		{name: "network", meta: bkexecutor.Meta{Args: steptest.Shell("true"), NetMode: 99}, code: -2, text: "network mode"},
		{name: "no command", meta: bkexecutor.Meta{}, code: -2, text: "step has no command"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := b.run(t.Context(), tt.meta)
			var exit *gatewayapi.ExitError
			var set *step.SetupError
			switch {
			case tt.code == 0 && r.failure != nil:
				t.Errorf("%v: %s", r.failure, r.err)
			case tt.code > 0 && (!errors.As(r.failure, &exit) || int(exit.ExitCode) != tt.code):
				t.Errorf("got %v, want exit code %d", r.failure, tt.code)
			case tt.code == -1 && !errors.As(r.failure, &set), tt.code < 0 && r.failure == nil:
				t.Errorf("got %v, want a SetupError", r.failure)
			case tt.code < 0 && (!strings.HasPrefix(r.failure.Error(), tt.text) || tt.cause != nil && !errors.Is(r.failure, tt.cause)):
				t.Errorf("got %v, want %s", r.failure, tt.text)
			}
		})
	}
	if got := b.tree(); got != "/etc /etc/noexec" {
		t.Errorf("left: %s", got)
	}
}

// TestChildren checks that nobody waits for a step's children, and that they are gone when it has ended.
func TestChildren(t *testing.T) {
	b := newBench(t)
	mark := steptest.Mark(9)
	begin := time.Now()
	if out := b.sh("sleep " + mark + " & (setsid sleep " + mark + " &) ; yes | head -c 300000 | tail -c 5; echo done"); !strings.HasSuffix(out, "y\ndone") {
		t.Errorf("output: %q", out)
	}
	if steptest.FindProcess(mark) != "" || time.Since(begin) > 5*time.Second {
		t.Error("a process has outlived the step, or was waited for")
	}
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan struct{})
	go func() {
		<-started
		time.Sleep(100 * time.Millisecond)
		cancel(cause)
	}()
	meta := b.meta(bkexecutor.Meta{Args: steptest.Shell("trap '' TERM INT; setsid sleep " + mark + " & sleep " + mark)})
	_, err := b.exec.Run(ctx, "", b.mount(), nil, bkexecutor.ProcessInfo{Meta: meta}, started)
	var exit *gatewayapi.ExitError
	if !errors.Is(err, cause) || !errors.As(err, &exit) || exit.ExitCode != 137 || !steptest.Gone(mark) {
		t.Errorf("cancelled: %v", err)
	}
	if got := b.tree(); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestTerminal checks streams, signals, terminals, and a second process in a running step.
func TestTerminal(t *testing.T) {
	b := newBench(t)
	var out steptest.Writer
	resize, started, signals := make(chan bkexecutor.WinSize, 1), make(chan struct{}), make(chan syscall.Signal, 1)
	in, inW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		script := "trap 'echo got it; exit 6' USR1; tty; test -t 0 -a -t 1 -a -t 2 && echo three; echo x > /dev/tty; cat /dev/null; ls -l $(tty) > /dev/null && echo listed; read x; stty size; while :; do sleep 0.05; done"
		meta := b.meta(bkexecutor.Meta{Tty: true, Env: []string{"PATH=/bin", "TERM=xterm", "A=1"}, Args: steptest.Shell(script)})
		_, err := b.exec.Run(t.Context(), "first", b.mount(), nil, bkexecutor.ProcessInfo{Meta: meta, Stdin: in, Stdout: &out, Resize: resize, Signal: signals}, started)
		done <- err
	}()
	<-started
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "listed") })
	if got := out.String(); !strings.Contains(got, "/dev/pts/") || !strings.Contains(got, "three\r\nx\r\n") {
		t.Errorf("terminal: %q", got)
	}
	resize <- bkexecutor.WinSize{Rows: 33, Cols: 44}
	time.Sleep(50 * time.Millisecond)
	if _, err := inW.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "33 44") })
	second := func(meta bkexecutor.Meta) (string, error) {
		var out steptest.Writer
		err := b.exec.Exec(t.Context(), "first", bkexecutor.ProcessInfo{Meta: meta, Stdout: &out})
		return out.String(), err
	}
	var exit *gatewayapi.ExitError
	steptest.Eventually(t, func() bool { // now and then the first shell has a child that is not yet its sleep
		got, err := second(bkexecutor.Meta{Args: steptest.Shell("echo $A; cat /proc/self/comm; grep -lx sh /proc/[0-9]*/comm | wc -l; exit 7")})
		if errors.As(err, &exit) && exit.ExitCode == 7 && got == "1\ncat\n2\n" {
			return true
		}
		t.Logf("exec: %q %v", got, err)
		return false
	})
	if got, err := second(bkexecutor.Meta{Tty: true, Args: steptest.Shell("tty")}); err != nil || !strings.Contains(got, "/dev/pts/") {
		t.Errorf("exec on a terminal: %q %v", got, err)
	}
	mark := steptest.Mark(7)
	hanging := make(chan error, 1)
	go func() {
		_, err := second(bkexecutor.Meta{Args: steptest.Shell("(setsid sleep " + mark + "&); sleep " + mark)})
		hanging <- err
	}()
	steptest.Eventually(t, func() bool { return steptest.FindProcess(mark) != "" })
	signals <- syscall.SIGUSR1
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode != 6 || !strings.Contains(out.String(), "got it") {
		t.Errorf("first process: %v: %s", err, out.String())
	}
	if err := <-hanging; err == nil || !steptest.Gone(mark) {
		t.Errorf("a second process has outlived the step: %v", err)
	}
	if _, err := second(bkexecutor.Meta{Args: steptest.Shell("true")}); !errors.Is(err, step.ErrNotRunning) {
		t.Errorf("exec after the end: %v", err)
	}
	if got := b.tree(); got != "" {
		t.Errorf("left: %s", got)
	}
}
