package chroot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	bkexecutor "github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/llbsolver/mounts"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// secretSource is BuildKit's own mount of a secret, into which the data is put that a client would have sent.
type secretSource struct {
	text string
	mode uint32
}

type noIdentities struct{ cache.Manager }

func (noIdentities) IdentityMapping() *user.IdentityMapping { return nil }

func (s secretSource) Mount(ctx context.Context, readonly bool) (bkexecutor.MountableRef, error) {
	m := &pb.Mount{SecretOpt: &pb.SecretOpt{ID: "s", Mode: s.mode, Uid: 7, Gid: 8}}
	mountable, err := mounts.NewMountManager("", noIdentities{}, nil).MountableSecret(ctx, m, nil)
	if err != nil {
		return nil, err
	}
	data := reflect.ValueOf(mountable).Elem().FieldByName("data")
	*(*[]byte)(unsafe.Pointer(data.UnsafeAddr())) = []byte(s.text)
	return mountable.Mount(ctx, readonly, nil)
}

// TestSecretOf holds what is taken out of BuildKit's secrets by reflection.
func TestSecretOf(t *testing.T) {
	ref, err := secretSource{"text", 0o440}.Mount(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	got, err := secretOf(ref)
	if err != nil || got == nil || string(got.data) != "text" || got.mode != 0o440 || got.uid != 7 || got.gid != 8 {
		t.Errorf("got %+v %v", got, err)
	}
	other, err := steptest.Dir("/x").Mount(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := secretOf(other); got != nil || err != nil {
		t.Errorf("a folder is a secret: %+v %v", got, err)
	}
}

func tmpfs() steptest.Source { return steptest.Source(mount.Mount{Type: "tmpfs", Source: "tmpfs"}) }

// folder makes a folder with a file f.
func folder(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func content(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

// TestMounts checks that mounts are there for a step, and that only what it wrote into writable ones is left.
func TestMounts(t *testing.T) {
	b := newBench(t)
	b.write("kept/old", "covered")
	b.write("etc/hosts", "the image's own")
	if err := errors.Join(os.Symlink("../run/stub.conf", b.rootfs+"/etc/resolv.conf"), os.Symlink("/elsewhere", b.rootfs+"/link")); err != nil {
		t.Fatal(err)
	}
	before := b.tree()
	var stat unix.Stat_t
	if err := unix.Stat(b.rootfs+"/etc", &stat); err != nil {
		t.Fatal(err)
	}
	cache, bound, inner := folder(t, "cache"), folder(t, "bound"), folder(t, "inner")
	if err := os.Chmod(cache, 0o775|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	dir := func(dest, source string, readonly bool) bkexecutor.Mount {
		return bkexecutor.Mount{Dest: dest, Src: steptest.Dir(source), Readonly: readonly}
	}
	for _, tt := range []struct {
		name, script, want string
		mounts             []bkexecutor.Mount
	}{
		{"cache", "cat /a/b/f; echo new > /a/b/f; mkdir /a/b/d; stat -c %a /a/b", "cache2775", []bkexecutor.Mount{dir("/a/b", cache, false)}},
		{"cache again, over a folder", "cat /kept/f; ls /kept", "new\nd\nf", []bkexecutor.Mount{dir("/kept", cache, false)}},
		{"one cache at two paths", "echo two > /x/f; cat /y/f", "two", []bkexecutor.Mount{dir("/x", cache, false), dir("/y", cache, false)}},
		{"read-only", "cat /r/f; echo lost > /r/f; cat /r/f", "boundlost", []bkexecutor.Mount{dir("/r", bound, true)}},
		{"a part", "cat /part", "bound", []bkexecutor.Mount{{Dest: "/part", Src: steptest.Dir(bound), Selector: "f", Readonly: true}}},
		{"nested, the inner one first", "cat /m/sub/deep/f /m/f; rm -r /m/sub/deep/f", "innertwo", []bkexecutor.Mount{dir("/m/sub/deep", inner, true), dir("/m", cache, false)}},
		{"tmpfs", "stat -c %a /t; echo x > /t/x; ls /t", "1777\nx", []bkexecutor.Mount{{Dest: "/t", Src: tmpfs()}}},
		{"secret", "cat /run/secrets/s; stat -c ' %a %u %g' /run/secrets/s", "s3cret 400 7 8", []bkexecutor.Mount{{Dest: "/run/secrets/s", Src: secretSource{"s3cret", 0o400}, Readonly: true}}},
		{"at a link", "cat /elsewhere/f", "two", []bkexecutor.Mount{dir("/link", cache, false)}},
		{"relative", "cat /rel/f", "two", []bkexecutor.Mount{dir("rel", cache, false)}},
		{"resolv.conf and hosts", "test -s /etc/resolv.conf && grep -c localhost /etc/hosts; echo x >> /etc/hosts", "2", nil},
	} {
		if got := b.sh(tt.script, tt.mounts...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if got := b.tree(); got != before {
			t.Fatalf("%s: left %q, want %q", tt.name, got, before)
		}
	}
	var now unix.Stat_t
	if err := unix.Stat(b.rootfs+"/etc", &now); err != nil || now.Mtim != stat.Mtim {
		t.Errorf("the times of /etc have changed: %v", err)
	}
	info, err := os.Stat(cache)
	if content(t, bound, "f") != "bound" || content(t, b.rootfs, "etc/hosts") != "the image's own" || content(t, b.rootfs, "kept/old") != "covered" ||
		content(t, cache, "f") != "two" || err != nil || info.Mode().Perm() != 0o775 {
		t.Error("a source or what was covered has changed")
	}
	if got := b.sh("echo 1 > /kept/beside; echo 2 > /new/beside", dir("/new/mnt", cache, false)); got != "" {
		t.Error(got)
	}
	if got := b.tree(); got != before+" /kept/beside /new /new/beside" && !strings.Contains(got, "/new/beside") {
		t.Errorf("what a step made beside a target: %q", got)
	}
}

// TestHostileStep checks that everything is where it belongs after steps that move, replace and remove their mounts.
func TestHostileStep(t *testing.T) {
	b := newBench(t)
	b.write("kept/old", "covered")
	outside := folder(t, "outside")
	for _, script := range []string{
		"mv /c /d", "mv /run /gone; ln -s " + outside + " /run", "rm -rf /c /run /kept /etc", "rm -rf /c; ln -s " + outside + " /c",
		"rm -rf /run/secrets; ln -s " + outside + " /run/secrets; mkdir /run/secrets/x", "mv /dev /dev2; mv /proc /proc2; ln -s / /proc; ls /proc2/self; ls /proc/self",
		"mv /kept /k2; mkdir -p /kept/x; echo new > /kept/old", "rm -rf /c; echo file > /c", "rm /etc/hosts; echo mine > /etc/hosts", "mkdir -p /a/b/c; mv /c /a/b/c; mv /a /z",
		"ln -s / /proc/self; ls -l /proc/self/fd > /dev/null; rm -rf /proc/*; ln -s /etc /proc/1; ls /proc /proc/self/fd",
	} {
		t.Run(script, func(t *testing.T) {
			cache := folder(t, "cache")
			_ = b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell(script)},
				bkexecutor.Mount{Dest: "/c", Src: steptest.Dir(cache)}, bkexecutor.Mount{Dest: "/kept", Src: tmpfs()},
				bkexecutor.Mount{Dest: "/run/secrets/s", Src: secretSource{"the secret", 0o400}})
			list, err := os.ReadDir(outside)
			if err != nil || len(list) != 1 || content(t, outside, "f") != "outside" {
				t.Errorf("outside there is %v %v", list, err)
			}
			info, err := os.Stat(cache)
			if err != nil || !info.IsDir() {
				t.Errorf("the cache is %v %v", info, err)
			}
			if !strings.Contains(script, "rm -rf /c") && content(t, cache, "f") != "cache" {
				t.Error("the cache has lost its content")
			}
			out, err := exec.CommandContext(t.Context(), "grep", "-r", "the secret", b.rootfs, b.root).CombinedOutput()
			if err == nil {
				t.Errorf("the secret is left: %s", out)
			}
			for _, name := range strings.Fields(b.tree()) {
				if info, err := os.Lstat(filepath.Join(b.rootfs, name)); err == nil && info.Mode()&os.ModeDevice != 0 {
					t.Errorf("a device is left: %s", name)
				}
			}
		})
		if out, err := exec.CommandContext(t.Context(), "find", b.rootfs, "-mindepth", "1", "-maxdepth", "1", "!", "-name", "bin", "-exec", "rm", "-rf", "{}", "+").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b.write("kept/old", "covered")
	}
}

// TestSocket checks an agent's socket, in the step's own file system and in another one.
func TestSocket(t *testing.T) {
	b := newBench(t)
	places := []string{t.TempDir()}
	if shm, err := os.MkdirTemp("/dev/shm", "chroot"); err == nil { //nolint:usetesting // on another file system
		t.Cleanup(func() { _ = os.RemoveAll(shm) })
		places = append(places, shm)
	}
	for _, dir := range places {
		socket := filepath.Join(dir, "agent")
		l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("hello\n"))
				_ = c.Close()
			}
		}()
		if got := b.play("dial /run/agent", bkexecutor.Mount{Dest: "/run/agent", Src: steptest.Dir(socket)}); got != "hello" {
			t.Errorf("%s: %q", dir, got)
		}
		_ = l.Close()
	}
	if got := b.tree(); got != "/program" {
		t.Errorf("left: %s", got)
	}
}

// TestSharedCache checks that a cache is in one step at a time, and that waiting for it can be given up.
func TestSharedCache(t *testing.T) {
	b := newBench(t)
	cache := folder(t, "")
	use := bkexecutor.Mount{Dest: "/c", Src: steptest.Dir(cache)}
	roots := []string{b.rootfs, steptest.BusyboxRoot(t), steptest.BusyboxRoot(t)}
	var all sync.WaitGroup
	for _, root := range roots {
		all.Go(func() {
			meta := b.meta(bkexecutor.Meta{Args: steptest.Shell("test -e /c/lock && exit 1; touch /c/lock; sleep 0.1; rm /c/lock; echo x >> /c/f")})
			if _, err := b.exec.Run(t.Context(), "", bkexecutor.Mount{Src: steptest.Dir(root)}, []bkexecutor.Mount{use}, bkexecutor.ProcessInfo{Meta: meta}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := content(t, cache, "f"); got != "x\nx\nx" {
		t.Errorf("cache: %q", got)
	}
	started := make(chan struct{})
	all.Go(func() {
		meta := b.meta(bkexecutor.Meta{Args: steptest.Shell("sleep 0.5")})
		_, _ = b.exec.Run(t.Context(), "", b.mount(), []bkexecutor.Mount{use}, bkexecutor.ProcessInfo{Meta: meta}, started)
	})
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.exec.Run(ctx, "", bkexecutor.Mount{Src: steptest.Dir(roots[1])}, []bkexecutor.Mount{use}, bkexecutor.ProcessInfo{Meta: b.meta(bkexecutor.Meta{Args: steptest.Shell("true")})}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting: %v", err)
	}
	all.Wait()
}

// TestKilledEngine checks that nothing of a step is left when the engine is killed, and that its cache is put back.
func TestKilledEngine(t *testing.T) {
	b := newBench(t)
	b.write("cache/old", "covered")
	cache := folder(t, "old")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%s:%s", engineVar, b.rootfs, b.root, cache))
	var out steptest.Writer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "up") && steptest.FindProcess("1000") != "" })
	if exists(cache) {
		t.Errorf("the step does not run: %s", out.String())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := Recover(b.root); err != nil {
		t.Fatal(err)
	}
	if p := steptest.FindProcess("1000"); p != "" {
		t.Errorf("process %s of the step is left", p)
	}
	_ = cmd.Wait()
	if got := content(t, cache, "f"); got != "new" {
		t.Errorf("the cache has %q", got)
	}
	if got := b.tree(); got != "/cache /cache/old" {
		t.Errorf("left: %s", got)
	}
	if err := errors.Join(Recover(b.root), Recover(b.root+"/nowhere")); err != nil {
		t.Errorf("nothing to recover: %v", err)
	}
}

// TestKilledSupervisor checks that a step ends with its supervisor, and that nothing of it is left.
func TestKilledSupervisor(t *testing.T) {
	b := newBench(t)
	cache := folder(t, "cache")
	mark := steptest.Mark(6)
	done, started := make(chan error, 1), make(chan struct{})
	var out steptest.Writer
	go func() {
		meta := b.meta(bkexecutor.Meta{Args: steptest.Shell("(setsid sleep " + mark + " &); setsid sleep " + mark + " & echo up; sleep " + mark)})
		_, err := b.exec.Run(t.Context(), "killed", b.mount(), []bkexecutor.Mount{{Dest: "/c", Src: steptest.Dir(cache)}}, bkexecutor.ProcessInfo{Meta: meta, Stdout: &out}, started)
		done <- err
	}()
	<-started
	steptest.Eventually(t, func() bool { return strings.Contains(out.String(), "up") && steptest.FindProcess(mark) != "" })
	st, _, leave, err := b.exec.(*chrootExecutor).running.Join(t.Context(), "killed")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	supervisor, err := supervisorOf(st.pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(supervisor, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var exit *gatewayapi.ExitError
	if err := <-done; !errors.As(err, &exit) || exit.ExitCode != 137 {
		t.Errorf("got %v", err)
	}
	if !steptest.Gone(mark) {
		t.Error("a process of the step is left")
	}
	if got := b.tree(); got != "" || content(t, cache, "f") != "cache" {
		t.Errorf("left: %s", got)
	}
}

// TestPossible checks what is said of a container in which a step can be run, and of others.
func TestPossible(t *testing.T) {
	err := Possible()
	var impossible *ImpossibleError
	switch env(innerVar) {
	case "":
		t.Skip("TestContainers runs this where it belongs")
	case "nochroot":
		if !errors.As(err, &impossible) || impossible.Missing != "CAP_SYS_CHROOT" || !errors.Is(err, unix.EPERM) {
			t.Errorf("without CAP_SYS_CHROOT: %v", err)
		}
	default:
		if err != nil {
			t.Error(err)
		}
	}
}
