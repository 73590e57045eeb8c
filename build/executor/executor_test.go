//go:build linux

package executor_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	bkexecutor "github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/sys/user"

	"github.com/wherry-oci/wherry/build/executor"
)

func TestMain(m *testing.M) {
	if os.Args[0] == executor.InitArg0 {
		executor.Init()
	}
	os.Exit(m.Run())
}

// source is a Mountable made of one mount.
type source mount.Mount

// dir shows a folder.
func dir(path string) source { return source{Type: "bind", Source: path, Options: []string{"rbind"}} }

func (s source) Mount(_ context.Context, readonly bool) (bkexecutor.MountableRef, error) {
	if readonly {
		s.Options = append([]string{"ro"}, s.Options...)
	}
	return mountRef{mount.Mount(s)}, nil
}

// mountRef is split from source because both interfaces have a method named Mount.
type mountRef struct{ m mount.Mount }

func (r mountRef) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{r.m}, func() error { return nil }, nil
}

func (r mountRef) IdentityMapping() *user.IdentityMapping { return nil }

// bench is an executor and a root file system of busybox.
type bench struct {
	t      *testing.T
	exec   bkexecutor.Executor
	rootfs string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("steps need root here; the same tests run again inside a user namespace in TestUserNamespace")
	}
	ex, err := executor.New(executor.Options{
		Root: filepath.Join(t.TempDir(), "executor"),
		Networks: map[pb.NetMode]network.Provider{
			pb.NetMode_HOST:  network.NewHostProvider(),
			pb.NetMode_UNSET: network.NewHostProvider(),
			pb.NetMode_NONE:  network.NewNoneProvider(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, exec: ex, rootfs: busyboxRoot(t)}
}

// busyboxRoot makes a root file system that has nothing but busybox and a few accounts.
func busyboxRoot(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox (package busybox-static) is not installed")
	}
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string, mode os.FileMode) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", string(data), 0o755)
	list, err := exec.Command(bin, "--list").Output()
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

// result is what a step left.
type result struct {
	out, err string
	failure  error
}

type writer struct{ bytes.Buffer }

func (*writer) Close() error { return nil }

func (b *bench) run(ctx context.Context, meta bkexecutor.Meta, mounts ...bkexecutor.Mount) result {
	b.t.Helper()
	if meta.Cwd == "" {
		meta.Cwd = "/"
	}
	meta.RemoveMountStubsRecursive = true
	if meta.Env == nil {
		meta.Env = []string{"PATH=/bin"}
	}
	var out, errOut writer
	_, err := b.exec.Run(ctx, "", bkexecutor.Mount{Src: dir(b.rootfs)}, mounts, bkexecutor.ProcessInfo{Meta: meta, Stdout: &out, Stderr: &errOut}, nil)
	return result{out: out.String(), err: errOut.String(), failure: err}
}

func (b *bench) sh(script string, mounts ...bkexecutor.Mount) result {
	b.t.Helper()
	return b.run(b.t.Context(), bkexecutor.Meta{Args: []string{"/bin/sh", "-c", script}}, mounts...)
}

func TestHello(t *testing.T) {
	b := newBench(t)
	r := b.sh("id; cat /proc/self/status; mount; ls -la / /dev /proc/self/fd; env; pwd; hostname; cat /etc/hosts; exit 3")
	t.Log(r.out, r.err, r.failure)
	var ee *gatewayapi.ExitError
	if !errors.As(r.failure, &ee) || ee.ExitCode != 3 {
		t.Error(r.failure)
	}
	_ = io.EOF
}
