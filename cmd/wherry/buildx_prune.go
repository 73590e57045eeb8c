//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
)

type buildxPruneOptions struct {
	All      bool
	Builder  string
	Filters  []string
	Force    bool
	Reserved string
	MaxUsed  string
	MinFree  string
	Verbose  bool
}

func buildxPruneCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "Remove build cache",
		Flags: byName(append(cacheFlags(),
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "Include internal/frontend images"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Do not prompt for confirmation"},
			hidden(&cli.StringFlag{Name: "keep-storage", Usage: "Same as --reserved-space"}),
			&cli.StringFlag{Name: "max-used-space", Usage: "Maximum amount of disk space allowed to keep for cache"},
			&cli.StringFlag{Name: "min-free-space", Usage: "Target amount of free disk space after pruning"},
			&cli.StringFlag{Name: "reserved-space", Usage: "Amount of disk space always allowed to keep for cache"},
			&cli.BoolFlag{Name: "verbose", Usage: "Provide a more verbose output"},
		)),
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			sayIdle(e, c)
			return runBuildxPrune(c.Context, e, buildxPruneOptions{
				All: c.Bool("all"), Builder: c.String("builder"), Filters: c.StringSlice("filter"), Force: c.Bool("force"),
				Reserved: firstOf(c.String("reserved-space"), c.String("keep-storage")),
				MaxUsed:  c.String("max-used-space"), MinFree: c.String("min-free-space"), Verbose: c.Bool("verbose"),
			})
		},
	}
}

func runBuildxPrune(ctx context.Context, e *env, o buildxPruneOptions) error {
	options, err := pruneCacheOptions(o)
	if err != nil {
		return err
	}
	cache, err := e.enterCache(ctx, o.Builder)
	if err != nil {
		return err
	}
	if !o.Force { // not before: entering starts this command again
		if sure, err := e.confirm(ctx, "WARNING! This will remove all "+whichCache(o.All)+"build cache. Are you sure you want to continue?"); err != nil || !sure {
			return err
		}
	}
	var gone []build.CacheRecord
	var total int64
	told := func(r build.CacheRecord) {
		gone = append(gone, r)
		total += r.Size
	}
	err = build.FarmPruneCache(ctx, cache.nodes, options, told)
	if err == nil && cache.local {
		err = build.PruneCache(ctx, cache.store, cache.state, options, e.note, told)
	}
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		if err := e.writeCache(o.format(), gone); err != nil {
			return err
		}
	}
	fmt.Fprintf(&e.Out, "Total:\t%s\n", units.HumanSize(float64(total)))
	return nil
}

func (o buildxPruneOptions) format() string {
	if o.Verbose {
		return verboseRecord
	}
	return ""
}

func whichCache(all bool) string {
	if all {
		return ""
	}
	return "dangling "
}

func pruneCacheOptions(o buildxPruneOptions) (build.PruneOptions, error) {
	command := program + " buildx prune"
	p := build.PruneOptions{All: o.All}
	var err error
	if p.Filter, p.Unused, err = cacheFilter(command, o.Filters); err != nil {
		return p, err
	}
	for _, size := range []struct {
		flag, typed string
		into        *int64
	}{{"reserved-space", o.Reserved, &p.Reserved}, {"max-used-space", o.MaxUsed, &p.MaxUsed}, {"min-free-space", o.MinFree, &p.MinFree}} {
		if size.typed == "" {
			continue
		}
		if *size.into, err = units.RAMInBytes(size.typed); err != nil || *size.into < 0 {
			return p, &usageError{command: command, err: fmt.Errorf("invalid --%s %q: want a size, as 10gb", size.flag, size.typed)}
		}
	}
	return p, nil
}
