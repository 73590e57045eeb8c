//go:build linux

package executor_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor"

	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// TestLimits checks that a step can't have more than it may, that a kill for want of memory is told as that, and that
// no group is left; or that limits are refused where there can be none.
func TestLimits(t *testing.T) {
	b := newBench(t)
	memory := &pb.LinuxResources{Memory: 32 << 20, MemorySwap: 32 << 20}
	if err := executor.LimitsPossible("", memory); err != nil {
		var refused *executor.NotDelegatedError
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		r := b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("true"), LinuxResources: memory})
		if !errors.As(r.failure, &refused) {
			t.Errorf("limits that can't be: %v", r.failure)
		}
		return
	}
	before := groups(t)
	eats := steptest.Shell("x=0123456789abcdef; while :; do x=$x$x; done")
	r := b.run(t.Context(), bkexecutor.Meta{Args: eats, LinuxResources: memory})
	var exit *gatewayapi.ExitError
	if !errors.As(r.failure, &exit) || exit.ExitCode != 137 || !errors.Is(r.failure, unix.ENOMEM) {
		t.Errorf("too much memory: %v", r.failure)
	}
	r = b.run(t.Context(), bkexecutor.Meta{Args: steptest.Shell("kill -9 $$"), LinuxResources: memory})
	if r.failure != nil && errors.Is(r.failure, unix.ENOMEM) {
		t.Errorf("a kill is taken for want of memory: %v", r.failure)
	}
	r = b.run(t.Context(), bkexecutor.Meta{
		Args:           steptest.Shell("grep -E '^0::/$|memory' /proc/self/cgroup; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null; grep Cpus_allowed_list /proc/self/status"),
		LinuxResources: &pb.LinuxResources{Memory: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpusetCpus: "0"},
	})
	if r.failure != nil || !strings.Contains(r.out, "Cpus_allowed_list:\t0\n") {
		t.Errorf("limits: %q %v %s", r.out, r.failure, r.err)
	}
	if after := groups(t); after != before {
		t.Errorf("groups are left: %s", after)
	}
}

// groups lists the groups of steps.
func groups(t *testing.T) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "wherry-") && d.Name() != "wherry-e2e" { // stories have that one
			all = append(all, path)
		}
		return nil // groups come and go meanwhile
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}
