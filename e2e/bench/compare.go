package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// contender is one program at one task.
type contender struct {
	name   string
	ready  func() error // before each run, not timed; may be nil
	args   []string
	then   []string // another command, whose time is added; may be nil
	daemon int      // process that works for it, and whose memory counts; 0: none
}

// compare times the contenders in turns, so that what else the machine does hits all alike.
func (b *bench) compare(ctx context.Context, what string, contenders ...contender) error {
	r := newRace(what, len(contenders))
	for range b.runs {
		for i, c := range contenders {
			if err := r.run(ctx, b, i, c); err != nil {
				return err
			}
		}
	}
	r.print()
	return nil
}

// race is what contenders have taken for one task.
type race struct {
	what  string
	names []string
	times [][]time.Duration
	peaks []int64 // the most memory that any run had, in kB
}

func newRace(what string, contenders int) *race {
	return &race{what, make([]string, contenders), make([][]time.Duration, contenders), make([]int64, contenders)}
}

// run has contender i run once.
func (r *race) run(ctx context.Context, b *bench, i int, c contender) error {
	took, peak, err := b.measure(ctx, c)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", r.what, c.name, err)
	}
	r.names[i], r.times[i], r.peaks[i] = c.name, append(r.times[i], took), max(r.peaks[i], peak)
	return nil
}

// print shows the medians. The ratio is to the last one: below 1 is faster than that.
func (r *race) print() {
	last := len(r.times) - 1
	r.table(func(i int) float64 { return float64(median(r.times[i])) / float64(median(r.times[last])) })
}

// printToFirst shows the medians, with the ratio of the first one's to each.
func (r *race) printToFirst() {
	r.table(func(i int) float64 { return float64(median(r.times[0])) / float64(median(r.times[i])) })
}

func (r *race) table(ratio func(i int) float64) {
	for i, name := range r.names {
		text := ""
		if len(r.names) > 1 {
			text = fmt.Sprintf("%.2f", ratio(i))
		}
		fmt.Printf("%-34s %-32s %10s %10s %8s %8s\n", r.what, name, show(median(r.times[i])), show(slices.Min(r.times[i])), text,
			fmt.Sprintf("%d MB", r.peaks[i]/1000))
	}
}

func (b *bench) time(ctx context.Context, c contender) (time.Duration, error) {
	took, _, err := b.measure(ctx, c)
	return took, err
}

// measure also tells the most memory that a process of the contender had, in kB.
func (b *bench) measure(ctx context.Context, c contender) (took time.Duration, peak int64, err error) {
	if c.ready != nil {
		if err := c.ready(); err != nil {
			return 0, 0, err
		}
	}
	for _, args := range [][]string{c.args, c.then} {
		if args == nil {
			continue
		}
		t, p, err := b.command(ctx, args)
		if err != nil {
			return 0, 0, err
		}
		took, peak = took+t, max(peak, p)
	}
	if c.daemon != 0 {
		peak = max(peak, memory(c.daemon))
	}
	return took, peak, nil
}

func (b *bench) command(ctx context.Context, args []string) (took time.Duration, peak int64, err error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
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
		now := memory(pid)
		if now == 0 {
			return peak
		}
		peak = now
		time.Sleep(5 * time.Millisecond)
	}
}

// memory is the most that a process had until now, in kB; 0 if it is gone.
func memory(pid int) (peak int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	if err != nil || !found { // a zombie has none
		return 0
	}
	if _, err := fmt.Sscan(rest, &peak); err != nil {
		return 0
	}
	return peak
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func show(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
