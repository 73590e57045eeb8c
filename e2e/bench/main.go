// Bench times wherry as a whole process, beside whichever peers are installed,
// in the same run on the same input. It prints medians and ratios and judges
// nothing: figures of different machines, or of a busy one, don't compare.
//
//	go run ./e2e/bench bin/wherry
//
// crane, buildctl and buildkitd are compiled once into the user's cache folder,
// at the versions that go.mod has; buildkitd and buildah run only for root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/wherry-oci/wherry/e2e/base"
	"github.com/wherry-oci/wherry/e2e/testreg"
)

func main() {
	if os.Args[0] == machineArg0 {
		fmt.Fprintln(os.Stderr, "bench:", beMachine(os.Args[1:]))
		os.Exit(1)
	}
	runs := flag.Int("runs", 7, "how often each command runs; the median counts")
	layout := flag.String("serve", "", "serve this OCI image layout as a registry, and do nothing else")
	only := flag.String("only", "start,names,build,pull,copy,archives", "the parts to run, separated by commas; there are reference, emulated and rungs too")
	emulator := flag.String("machine", "", "run the arguments where this emulator is registered, or none if it is \"-\", and do nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch {
	case *layout != "":
		err = serveLayout(ctx, *layout)
	case *emulator != "":
		err = asMachine(ctx, *emulator, flag.Args())
	default:
		err = run(ctx, flag.Arg(0), *only, *runs)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of all measurements.
type bench struct {
	wherry, dir string
	runs        int
	registry    *testreg.Registry
}

func run(ctx context.Context, wherry, only string, runs int) (err error) {
	b := bench{runs: runs}
	if wherry == "" {
		return errors.New("usage: bench [-runs N] [-only PARTS] WHERRY")
	}
	if b.wherry, err = filepath.Abs(wherry); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "wherry-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.registry, err = testreg.Start(testreg.Options{}); err != nil {
		return err
	}
	defer b.registry.Close()
	index, err := base.Index(ctx)
	if err != nil {
		return err
	}
	if err := b.registry.Put("toolbox:latest", index); err != nil {
		return err
	}
	fmt.Printf("%-34s %-32s %10s %10s %8s %8s\n", "WHAT", "WITH", "MEDIAN", "FASTEST", "RATIO", "MEMORY")
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", b.start}, {"names", b.names}, {"build", b.cachedBuild}, {"pull", b.pulls}, {"copy", b.copies}, {"archives", b.archives}, {"reference", b.reference}, {"emulated", b.emulated}, {"rungs", b.rungCosts},
	} {
		if !slices.Contains(strings.Split(only, ","), part.name) {
			continue
		}
		b.runs = runs
		if err := part.run(ctx); err != nil {
			return err
		}
	}
	return nil
}
