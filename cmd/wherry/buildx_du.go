//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
)

type buildxDuOptions struct {
	Builder string
	Filters []string
	Format  string
	Verbose bool
}

func buildxDuCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "du",
		Usage: "Disk usage of the build cache",
		Flags: byName(append(cacheFlags(),
			formatFlag(),
			&cli.BoolFlag{Name: "verbose", Usage: "Shorthand for \"--format=pretty\""},
		)),
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			sayIdle(e, c)
			return runBuildxDu(c.Context, e, buildxDuOptions{
				Builder: c.String("builder"), Filters: c.StringSlice("filter"), Format: c.String("format"), Verbose: c.Bool("verbose"),
			})
		},
	}
}

func runBuildxDu(ctx context.Context, e *env, o buildxDuOptions) error {
	command := program + " buildx du"
	if o.Format != "" && o.Verbose {
		return &usageError{command: command, err: fmt.Errorf("--format and --verbose can't be used together")}
	}
	if o.Verbose || o.Format == "pretty" {
		o.Format = verboseRecord
	}
	filter, _, err := cacheFilter(command, o.Filters)
	if err != nil {
		return err
	}
	cache, err := e.enterCache(ctx, o.Builder)
	if err != nil {
		return err
	}
	records, err := build.FarmCacheUsage(ctx, cache.nodes, filter)
	if err == nil && cache.local {
		var own []build.CacheRecord
		own, err = build.CacheUsage(ctx, cache.store, cache.state, filter, e.note)
		records = append(records, own...)
	}
	if err != nil {
		return err
	}
	if err := e.writeCache(o.Format, records); err != nil {
		return err
	}
	if len(o.Filters) > 0 || o.Format != "" && o.Format != "table" && o.Format != verboseRecord {
		return nil
	}
	return e.writeCacheSummary(records)
}

func (e *env) writeCacheSummary(records []build.CacheRecord) error {
	var total, reclaimable, shared int64
	for _, r := range records {
		total += r.Size
		if !r.InUse {
			reclaimable += r.Size
		}
		if r.Shared {
			shared += r.Size
		}
	}
	tw := tabwriter.NewWriter(&e.Out, 1, 8, 1, '\t', 0)
	if shared > 0 {
		fmt.Fprintf(tw, "Shared:\t%s\nPrivate:\t%s\n", units.HumanSize(float64(shared)), units.HumanSize(float64(total-shared)))
	}
	fmt.Fprintf(tw, "Reclaimable:\t%s\nTotal:\t%s\n", units.HumanSize(float64(reclaimable)), units.HumanSize(float64(total)))
	return tw.Flush()
}
