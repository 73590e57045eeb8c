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
	"syscall"
	"time"

	"github.com/wherry-oci/wherry/e2e/base"
	"github.com/wherry-oci/wherry/e2e/testreg"
)

func main() {
	runs := flag.Int("runs", 7, "how often each command runs; the median counts")
	layout := flag.String("serve", "", "serve this OCI image layout as a registry, and do nothing else")
	only := flag.String("only", "", "the parts to run, separated by commas: start,names,build,pull,archives; all by default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *layout != "" {
		err = serveLayout(ctx, *layout)
	} else {
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
		{"start", b.start}, {"names", b.names}, {"build", b.cachedBuild}, {"pull", b.pulls}, {"archives", b.archives},
	} {
		if only != "" && !slices.Contains(strings.Split(only, ","), part.name) {
			continue
		}
		b.runs = runs
		if err := part.run(ctx); err != nil {
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
// The ratio is to the last one: below 1 is faster than that. Memory is the most that any run had.
func (b *bench) compare(ctx context.Context, what string, contenders ...contender) error {
	times, peaks := make([][]time.Duration, len(contenders)), make([]int64, len(contenders))
	for range b.runs {
		for i, c := range contenders {
			took, peak, err := b.measure(ctx, c)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", what, c.name, err)
			}
			times[i], peaks[i] = append(times[i], took), max(peaks[i], peak)
		}
	}
	reference := median(times[len(times)-1])
	for i, c := range contenders {
		ratio := ""
		if len(contenders) > 1 {
			ratio = fmt.Sprintf("%.2f", float64(median(times[i]))/float64(reference))
		}
		fmt.Printf("%-34s %-32s %10s %10s %8s %8s\n", what, c.name, show(median(times[i])), show(slices.Min(times[i])), ratio,
			fmt.Sprintf("%d MB", peaks[i]/1000))
	}
	return nil
}

func (b *bench) time(ctx context.Context, c contender) (time.Duration, error) {
	took, _, err := b.measure(ctx, c)
	return took, err
}

// measure also tells the most memory that the process had, in KiB.
func (b *bench) measure(ctx context.Context, c contender) (took time.Duration, peak int64, err error) {
	if c.ready != nil {
		if err := c.ready(); err != nil {
			return 0, 0, err
		}
	}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "HOME="+b.dir, "WHERRY_STORE=", "DOCKER_CONFIG=")
	var errs strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	start := time.Now()
	if err = cmd.Start(); err == nil {
		watched := make(chan int64)
		go func() { watched <- watchMemory(cmd.Process.Pid) }()
		err = cmd.Wait()
		took = time.Since(start)
		peak = <-watched
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, errs.String())
	}
	return took, peak, nil
}

// watchMemory returns the most memory that a process had, in kB, when it is gone.
// What the kernel counts for a parent has the parent's own memory in it.
func watchMemory(pid int) (peak int64) {
	for {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, found := strings.Cut(string(status), "VmHWM:")
		if err != nil || !found { // a zombie has none
			return peak
		}
		if _, err := fmt.Sscan(rest, &peak); err != nil {
			return peak
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func show(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
