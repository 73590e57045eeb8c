//go:build linux

package handover

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// The names under which the test binary starts itself again.
const (
	confine  = "confine"  // gives up what a process in a default container has not, and becomes confined
	confined = "confined" // runs tests
	doomed   = "doomed"   // builds until it kills itself
)

func TestMain(m *testing.M) {
	_ = log.SetLevel("error")
	switch os.Args[0] {
	case confine:
		fmt.Fprintln(os.Stderr, giveUp()) //nolint:forbidigo // a process of its own
		os.Exit(1)
	case doomed:
		fmt.Fprintln(os.Stderr, buildAndDie(os.Args[1], os.Args[2])) //nolint:forbidigo // a process of its own
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// giveUp drops all capabilities but those of docker's default containers, has the kernel kill whoever tries to mount,
// and goes on as confined.
func giveUp() error {
	runtime.LockOSThread()
	kept := map[uintptr]bool{
		unix.CAP_CHOWN: true, unix.CAP_DAC_OVERRIDE: true, unix.CAP_FOWNER: true, unix.CAP_FSETID: true, unix.CAP_KILL: true,
		unix.CAP_SETGID: true, unix.CAP_SETUID: true, unix.CAP_SETPCAP: true, unix.CAP_NET_BIND_SERVICE: true,
		unix.CAP_NET_RAW: true, unix.CAP_SYS_CHROOT: true, unix.CAP_MKNOD: true, unix.CAP_AUDIT_WRITE: true, unix.CAP_SETFCAP: true,
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP && os.Geteuid() == 0; c++ {
		if kept[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for _, call := range []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_OPEN_TREE,
		unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	} {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	if err := setFilter(filter); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", append([]string{confined}, os.Args[1:]...), os.Environ())
}

// TestConfined runs the other tests where nothing can be mounted, as root and as somebody who can't give files away.
func TestConfined(t *testing.T) {
	if os.Args[0] == confined {
		t.Skip("this is it")
	}
	flat := filepath.Join(t.TempDir(), "flat")
	if err := errors.Join(os.WriteFile(flat, flattened(t, false), 0o644), os.Chmod(filepath.Dir(filepath.Dir(flat)), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{0, 1000} {
		t.Run(fmt.Sprint("as ", uid), func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("only root can be others")
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.skip=^(TestConfined|TestLayersAreThoseOfOverlayfs)$", flat)
			cmd.Args[0] = confine
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if n := bytes.Count(out, []byte("\n--- PASS")); n < 5 {
				t.Errorf("only %d tests ran:\n%s", n, out)
			}
		})
	}
}

// flattened is the layer of all that is in the folder of an image.
func flattened(t *testing.T, aside bool) []byte {
	t.Helper()
	w := newWorld(t, Options{OwnersAside: aside})
	return w.layerOfFolders("", w.image())
}

// image is a snapshot of baseLayers.
func (w *world) image() (name string) {
	w.t.Helper()
	for i, layer := range baseLayers(w.t) {
		parent := name
		name = fmt.Sprint("base", i)
		w.pulled(name, parent, layer)
	}
	return name
}

// TestOwnersAside makes of an image, without a right to give files away, what root makes of it.
func TestOwnersAside(t *testing.T) {
	if flag.NArg() == 1 { // by root, not confined
		want, err := os.ReadFile(flag.Arg(0))
		if err != nil {
			t.Fatal(err)
		}
		sameLayer(t, flattened(t, true), want)
	}
	testOwnersAside(t, t.TempDir())
}

// TestOwnersInTable is the same on a file system that has no attributes.
func TestOwnersInTable(t *testing.T) {
	dir := plainFileSystem(t)
	t.Run("on ramfs", func(t *testing.T) { testOwnersAside(t, dir) })
}

// plainFileSystem mounts a file system that has no attributes, or skips the test where nothing can be mounted.
func plainFileSystem(t *testing.T) string {
	t.Helper()
	if os.Args[0] == confined {
		t.Skip("it would mount")
	}
	dir := t.TempDir()
	switch err := unix.Mount("none", dir, "ramfs", 0, ""); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		t.Skipf("nothing can be mounted here: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func testOwnersAside(t *testing.T, dir string) {
	w := newWorld(t, Options{Dir: dir, OwnersAside: true})
	base := w.image()
	root := w.prepare("ops", base)
	sh(t, root, `mkdir -p app/bin; echo run >app/bin/tool; ln -s tool app/bin/link; ln app/bin/tool app/bin/also; echo x >>etc/shadow; echo plain >plain
		touch -h -d @1700000000 app/bin/tool app/bin/link app/bin app etc/shadow etc plain`)
	for path, o := range map[string]Owner{
		"app": {UID: 5, GID: 6, Mode: 0o555 | os.ModeSticky}, "app/bin/tool": {UID: 7, GID: 8, Mode: 0o510 | os.ModeSetuid | os.ModeSetgid},
		"app/bin/link": {UID: 9, GID: 10}, "dev/null": {UID: 11, GID: 12, Mode: 0o600},
	} {
		w.must(w.SetOwner(filepath.Join(root, path), o))
		got, err := w.Owner(filepath.Join(root, path))
		if err != nil || got.UID != o.UID || got.GID != o.GID || path != "app/bin/link" && got.Mode != o.Mode {
			t.Errorf("%s: owner %+v, want %+v, %v", path, got, o, err)
		}
	}
	w.must(w.Commit(t.Context(), "changed", "ops"))
	const want = `5 app/ 1555 5:6 1700000000 "" 0,0 "" map[]
5 app/bin/ 0755 0:0 1700000000 "" 0,0 "" map[]
0 app/bin/also 6510 7:8 1700000000 "" 0,0 "run\n" map[]
2 app/bin/link 0777 9:10 1700000000 "tool" 0,0 "" map[]
1 app/bin/tool 6510 7:8 1700000000 "app/bin/also" 0,0 "" map[]
5 dev/ 0755 0:0 1600000000 "" 0,0 "" map[]
3 dev/null 0600 11:12 1600000000 "" 1,3 "" map[]
5 etc/ 0755 0:0 1700000000 "" 0,0 "" map[]
0 etc/shadow 0640 0:42 1700000000 "" 0,0 "secretx\n" map[]
0 plain 0644 0:0 1700000000 "" 0,0 "plain\n" map[]
`
	if got := list(t, w.layer(base, "changed")); got != want {
		t.Errorf("layer:\n%s\nwant:\n%s", got, want)
	}
	flat := w.layerOfFolders("", base)
	w = w.reopened()
	rewound := false
	w.kill = func(point string) { rewound = rewound || point == "descendant taken" }
	w.rebuild(base)
	sameLayer(t, w.layerOfFolders("", base), flat)
	if !rewound {
		t.Error("the folder was not wound back")
	}
	if got := list(t, w.layerOfFolders(base, "changed")); got != want {
		t.Errorf("rebuilt:\n%s\nwant:\n%s", got, want)
	}
	root = w.prepare("copied", "changed") // of a folder that is read
	w.must(w.SetOwner(filepath.Join(root, "app/bin/link"), Owner{UID: 13, GID: 14}))
	w.must(w.Commit(t.Context(), "relinked", "copied"))
	if got := list(t, w.layer("changed", "relinked")); !strings.Contains(got, "app/bin/link 0777 13:14") || strings.Count(got, "\n") != 3 {
		t.Errorf("layer of a symlink:\n%s", got)
	}
}

// rebuild drops the folder of a snapshot, so that it is made of layers.
func (w *world) rebuild(name string) {
	w.t.Helper()
	w.must(removeTree(filepath.Join(w.options.Dir, "folders", w.idNamed(name))))
}

// killScript is what the doomed process does; steps are named after their numbers.
func killSteps() []string {
	return []string{"mkdir d; echo 0 >d/f", "echo 1 >>d/f; echo new >n", "rm n; echo 2 >>d/f", "mv d e; echo 3 >>e/f"}
}

func buildAndDie(dir, point string) error {
	s, err := Open(Options{Dir: dir, OwnersAside: os.Geteuid() != 0})
	if err != nil {
		return err
	}
	s.kill = func(p string) {
		if p+fmt.Sprint(len(s.known)) == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return buildSteps(s, 0)
}

// buildSteps goes on with the steps of killSteps, and then reads the first and removes the last snapshot.
func buildSteps(s *Snapshots, from int) error {
	ctx, parent := context.Background(), ""
	if from > 0 {
		parent = fmt.Sprint(from - 1)
	}
	for i, script := range killSteps()[from:] {
		name := fmt.Sprint(from + i)
		m, err := s.Prepare(ctx, "active "+name, parent)
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "sh", "-ec", script)
		cmd.Dir = m[0].Source
		if err := errors.Join(cmd.Run(), s.Commit(ctx, name, "active "+name)); err != nil {
			return err
		}
		parent = name
	}
	if _, err := s.View(ctx, "view", "0"); err != nil {
		return err
	}
	if _, err := s.Prepare(ctx, "copy", "0"); err != nil {
		return err
	}
	if err := s.Remove(ctx, "view"); err != nil {
		return err
	}
	if _, err := s.Prepare(ctx, "other", "2"); err != nil {
		return err
	}
	return errors.Join(s.Remove(ctx, "copy"), s.Remove(ctx, "other"), s.Remove(ctx, parent))
}

// TestKilled kills a process wherever something is half done, and opens what it has left.
func TestKilled(t *testing.T) {
	points := map[string]bool{}
	s, err := Open(Options{Dir: t.TempDir(), OwnersAside: os.Geteuid() != 0})
	if err != nil {
		t.Fatal(err)
	}
	s.kill = func(p string) { points[p+fmt.Sprint(len(s.known))] = true }
	if err := errors.Join(buildSteps(s, 0), s.Close()); err != nil {
		t.Fatal(err)
	}
	if len(points) < 24 || !points["ancestor taken6"] {
		t.Fatalf("only %v", points)
	}
	for point := range points {
		t.Run(point, func(t *testing.T) { killAt(t, point) })
	}
}

func killAt(t *testing.T, point string) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", dir, point)
	cmd.Args[0] = doomed
	out, err := cmd.CombinedOutput()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v %s", err, out)
	}
	w := newWorld(t, Options{Dir: dir, OwnersAside: os.Geteuid() != 0})
	done := 0
	w.must(w.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			done++
		}
		return nil
	}))
	for i := range done {
		var want string
		for n := range i + 1 {
			want += fmt.Sprintln(n)
		}
		got, err := os.ReadFile(filepath.Join(w.view(fmt.Sprint(i)), map[bool]string{true: "e/f", false: "d/f"}[i == 3]))
		if err != nil || string(got) != want {
			t.Errorf("step %d of %d has %q, %v", i, done, got, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "*[^0-9]*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, key := range []string{"active 0", "active 1", "active 2", "active 3", "view", "copy", "other"} {
		_ = w.Remove(t.Context(), key) // as the collector does: some are there, some are not
	}
	if done < len(killSteps()) {
		w.must(buildSteps(w.Snapshots, done))
	}
}

// setFilter loads a seccomp filter for this thread.
func setFilter(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	return nil
}
