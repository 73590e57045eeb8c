//go:build linux

// Package steptest has what the executors' tests share: root file systems, sources of mounts, and streams.
package steptest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/sys/user"
)

// Source is a Mountable made of one mount.
type Source mount.Mount

// Dir shows a folder.
func Dir(path string) Source { return Source{Type: "bind", Source: path, Options: []string{"rbind"}} }

// Mount implements executor.Mountable.
func (s Source) Mount(_ context.Context, readonly bool) (executor.MountableRef, error) {
	if readonly {
		s.Options = append([]string{"ro"}, s.Options...)
	}
	return mountRef{mount.Mount(s)}, nil
}

// mountRef is split from Source because both interfaces have a method named Mount.
type mountRef struct{ m mount.Mount }

func (r mountRef) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{r.m}, func() error { return nil }, nil
}

func (r mountRef) IdentityMapping() *user.IdentityMapping { return nil }

// BusyboxRoot makes a root file system that has nothing but busybox and its names. The test is skipped without one.
func BusyboxRoot(t testing.TB) string {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox (package busybox-static) is not installed")
	}
	root := t.TempDir()
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Chmod(root, 0o755), os.Mkdir(filepath.Join(root, "bin"), 0o755), os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.CommandContext(t.Context(), bin, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(list)) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	return root
}

// WriteFile makes a file in a root file system, with the folders above it.
func WriteFile(t testing.TB, root, name, content string) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// Tree lists a root file system except for busybox.
func Tree(t testing.TB, root string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		name := strings.TrimPrefix(p, root)
		if name == "/bin" {
			return filepath.SkipDir
		}
		if name != "" {
			out = append(out, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// Mark is a number to sleep that no other process sleeps, for FindProcess.
func Mark(first int) string {
	return strconv.Itoa(first) + strconv.FormatInt(time.Now().UnixNano()%1e8, 10)
}

// Writer is a stream of a step; it may be read while the step runs.
type Writer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

// String is all that was written so far.
func (w *Writer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// Close implements io.Closer.
func (*Writer) Close() error { return nil }

// Shell is the command that runs a script.
func Shell(script string) []string { return []string{"/bin/sh", "-c", script} }

// Eventually waits five seconds at most until cond holds.
func Eventually(t testing.TB, cond func() bool) {
	t.Helper()
	for range 500 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("waited for five seconds")
}

// FindProcess returns the pid of a process with the word in its command line.
func FindProcess(word string) string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for arg := range bytes.SplitSeq(data, []byte{0}) {
			if string(arg) == word {
				return filepath.Base(filepath.Dir(f))
			}
		}
	}
	return ""
}

// Gone waits two seconds at most until FindProcess finds nothing.
func Gone(word string) bool {
	for range 200 {
		if FindProcess(word) == "" {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
