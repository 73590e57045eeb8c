// Bench times wherry as a whole process, beside whichever peers are installed,
// in the same run on the same input. It prints medians and ratios and judges
// nothing: figures of different machines, or of a busy one, don't compare.
//
//	go run ./e2e/bench bin/wherry
//
// crane, buildctl and buildkitd are compiled once into the user's cache folder,
// at the versions that go.mod has; buildkitd runs only for root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-oci/wherry/e2e/base"
	"github.com/wherry-oci/wherry/e2e/testreg"
)

func main() {
	runs := flag.Int("runs", 7, "how often each command runs; the median counts")
	megabytes := flag.Int64("mb", 300, "size of the image that is moved")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, flag.Arg(0), *runs, *megabytes)
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
	megabytes   int64
	registry    *testreg.Registry
}

func run(ctx context.Context, wherry string, runs int, megabytes int64) (err error) {
	b := bench{runs: runs, megabytes: megabytes}
	if wherry == "" {
		return errors.New("usage: bench [-runs N] [-mb N] WHERRY")
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
	fmt.Printf("%-34s %-24s %10s %10s %8s\n", "WHAT", "WITH", "MEDIAN", "FASTEST", "RATIO")
	for _, part := range []func(context.Context) error{b.start, b.names, b.cachedBuild, b.transfer} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// contender is one program at one task.
type contender struct {
	name  string
	ready func() error // before each run, not timed; may be nil
	args  []string
}

// compare times the contenders in turns, so that what else the machine does hits all alike.
// The ratio is to the last one: below 1 is faster than that.
func (b *bench) compare(ctx context.Context, what string, contenders ...contender) error {
	times := make([][]time.Duration, len(contenders))
	for range b.runs {
		for i, c := range contenders {
			took, err := b.time(ctx, c)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", what, c.name, err)
			}
			times[i] = append(times[i], took)
		}
	}
	reference := median(times[len(times)-1])
	for i, c := range contenders {
		ratio := ""
		if len(contenders) > 1 {
			ratio = fmt.Sprintf("%.2f", float64(median(times[i]))/float64(reference))
		}
		fmt.Printf("%-34s %-24s %10s %10s %8s\n", what, c.name, show(median(times[i])), show(slices.Min(times[i])), ratio)
	}
	return nil
}

func (b *bench) time(ctx context.Context, c contender) (time.Duration, error) {
	if c.ready != nil {
		if err := c.ready(); err != nil {
			return 0, err
		}
	}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "HOME="+b.dir, "WHERRY_STORE=", "DOCKER_CONFIG=")
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, errs.String())
	}
	return time.Since(start), nil
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func show(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
