//go:build linux

package executor_test

import (
	"os/exec"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/resources"
	"github.com/moby/buildkit/executor/runcexecutor"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/internal/steptest"
)

// BenchmarkStep is the cost of a step that does nothing: with this package, and with runc where it is installed.
func BenchmarkStep(b *testing.B) {
	opts := options(b.TempDir())
	ours, err := executor.New(opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) { benchmarkStep(b, ours) })
	b.Run("runc", func(b *testing.B) {
		if _, err := exec.LookPath("runc"); err != nil {
			b.Skip("runc is not installed")
		}
		runc, err := runcexecutor.New(runcexecutor.Opt{Root: b.TempDir(), ResourceMonitor: &resources.Monitor{}}, opts.Networks)
		if err != nil {
			b.Fatal(err)
		}
		benchmarkStep(b, runc)
	})
}

func benchmarkStep(b *testing.B, ex bkexecutor.Executor) {
	root := bkexecutor.Mount{Src: steptest.Dir(steptest.BusyboxRoot(b))}
	meta := bkexecutor.Meta{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}}
	for b.Loop() {
		if _, err := ex.Run(b.Context(), "", root, nil, bkexecutor.ProcessInfo{Meta: meta}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
