//go:build linux

package selinux

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
)

// Most of what this package does is for the kernel to say: the virtual machines of e2e have one with SELinux.

func TestNotInForce(t *testing.T) {
	if currentLabel() != "" {
		t.Skip("here it is in force")
	}
	d, err := Find(t.TempDir(), false)
	if d != nil || err != nil {
		t.Fatalf("got %v, %v", d, err)
	}
	if d.Type() != "" || d.LabelFolder("/does/not/exist") != nil || d.Snapshots(nil) != nil {
		t.Error("no domain does something")
	}
	l, release, err := d.Labels()
	release()
	if l != (Labels{}) || err != nil || l.Source(nil) != nil || l.MountData("tmpfs", "size=1m") != "size=1m" {
		t.Errorf("got %v, %v", l, err)
	}
}

func TestLabelParts(t *testing.T) {
	for _, c := range []struct{ label, kind, shared string }{
		{"system_u:system_r:container_t:s0:c1,c2", "container_t", "system_u:system_r:container_t:s0"},
		{"system_u:object_r:container_file_t:s0", "container_file_t", "system_u:object_r:container_file_t:s0"},
		{"system_u:system_r:container_t", "container_t", "system_u:system_r:container_t"},
		{"unconfined", "", "unconfined"},
		{"", "", ""},
	} {
		if got := typeOf(c.label); got != c.kind {
			t.Errorf("type of %q: %q", c.label, got)
		}
		if got := shared(c.label); got != c.shared {
			t.Errorf("shared %q: %q", c.label, got)
		}
	}
}

func TestMountData(t *testing.T) {
	l := Labels{Files: "u:object_r:file_t:s0:c1,c2"}
	for _, c := range []struct{ kind, data, want string }{
		{"tmpfs", "", `context="u:object_r:file_t:s0:c1,c2"`},
		{"tmpfs", "size=1m,mode=755", `size=1m,mode=755,context="u:object_r:file_t:s0:c1,c2"`},
		{"devpts", "gid=5", `gid=5,context="u:object_r:file_t:s0:c1,c2"`},
		{"tmpfs", `context="other"`, `context="other"`},
		{"proc", "", ""},
		{"cgroup2", "nsdelegate", "nsdelegate"},
	} {
		if got := l.MountData(c.kind, c.data); got != c.want {
			t.Errorf("%s with %q: %q", c.kind, c.data, got)
		}
	}
}

// stacked is a snapshotter as the one of overlayfs.
type stacked struct{ snapshots.Snapshotter }

func (stacked) Prepare(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/l", "upperdir=/u", "workdir=/w"}}}, nil
}

func (stacked) View(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/l:/m"}}}, nil
}

func (stacked) Mounts(context.Context, string) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "bind", Source: "/u", Options: []string{"rbind", "rw"}}}, nil
}

// TestSnapshots checks that what is written to is labelled, and that what is only shown is as BuildKit knows it.
func TestSnapshots(t *testing.T) {
	s := (&Domain{files: "u:object_r:file_t:s0"}).Snapshots(stacked{})
	written, err := s.Prepare(t.Context(), "", "")
	if err != nil || !slices.Equal(written[0].Options, []string{"lowerdir=/l", "upperdir=/u", "workdir=/w", `context="u:object_r:file_t:s0"`}) {
		t.Errorf("to be written: %v, %v", written, err)
	}
	shown, err := s.View(t.Context(), "", "")
	if err != nil || !slices.Equal(shown[0].Options, []string{"lowerdir=/l:/m"}) {
		t.Errorf("to be shown: %v, %v", shown, err)
	}
	bound, err := s.Mounts(t.Context(), "")
	if err != nil || !slices.Equal(bound[0].Options, []string{"rbind", "rw"}) {
		t.Errorf("bound: %v, %v", bound, err)
	}
}

// TestPipe checks that it is as any other pipe, and nothing of it stays.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	r, w, err := Pipe(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	go func() {
		_, _ = w.WriteString("said") // what is read tells
		_ = w.Close()
	}()
	if text, err := io.ReadAll(r); err != nil || string(text) != "said" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, _, err := Pipe(filepath.Join(dir, "none")); err == nil {
		t.Error("a pipe in no folder")
	}
}

// TestCopyProgram checks that a program is copied once.
func TestCopyProgram(t *testing.T) {
	dir := t.TempDir()
	name, err := copyProgram("/proc/self/exe", dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o755 || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}
	again, err := copyProgram("/proc/self/exe", dir)
	if list, _ := os.ReadDir(dir); err != nil || again != name || len(list) != 1 {
		t.Errorf("again: %q, %v, %v", again, list, err)
	}
	if _, err := copyProgram("/does/not/exist", dir); err == nil {
		t.Error("a copy of nothing")
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left of it: %v", list)
	}
}
