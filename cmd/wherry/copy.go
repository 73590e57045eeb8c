package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type copyOptions struct {
	From, To  string
	All       bool // what refers to it goes along
	AllTags   bool
	Tags      []string // patterns
	Platforms []string // empty: whole
	LimitRate string   // bytes a second; empty: none
	Quiet     bool
}

func newCopyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "copy",
		Usage:     "Copy images between registries, image layouts and archives",
		ArgsUsage: "SRC DST",
		Description: `SRC and DST are names in registries (NAME, docker://NAME), image layouts
(oci:DIR[:REF]), archives (oci-archive:FILE[:REF], docker-archive:FILE[:REF]) or
images of the store (store:NAME).`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "Copy signatures, SBOMs and all else that refers to the image, too"},
			&cli.BoolFlag{Name: "all-tags", Aliases: []string{"a"}, Usage: "Copy all tags of a repository"},
			limitRateFlag(),
			&cli.StringSliceFlag{Name: "platform", Usage: "Copy these platforms alone: of one the manifest, of several a new index"},
			quietFlag("Suppress verbose output"),
			&cli.StringSliceFlag{Name: "tags", Usage: "Copy the tags that fit a pattern, as \"1.*\"; those that fit \"!PATTERN\" stay behind"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 2, 2)
			if err != nil {
				return err
			}
			return runCopy(c.Context, e, copyOptions{
				From: args[0], To: args[1], All: c.Bool("all"), AllTags: c.Bool("all-tags"), Tags: c.StringSlice("tags"),
				Platforms: c.StringSlice("platform"), LimitRate: c.String("limit-rate"), Quiet: c.Bool("quiet"),
			})
		},
	}
}

func limitRateFlag() cli.Flag {
	return &cli.StringFlag{Name: "limit-rate", Usage: "Read layers at most this fast, in bytes a second, as \"10MB\""}
}

func runCopy(ctx context.Context, e *env, o copyOptions) (err error) {
	c, from, to, err := newCopy(e, o)
	if err != nil {
		return err
	}
	defer c.show.close()
	source, err := c.openSource(ctx, from)
	if err != nil {
		return concerning("copy", o.From, err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target := c.openTarget(to)
	if !o.AllTags && len(o.Tags) == 0 {
		one, err := c.one(ctx, copyJob{source: source, from: from, target: target, to: to})
		if err == nil {
			err = target.Finish(ctx)
		}
		fmt.Fprintln(&e.Out, one.digest)
		return concerning("copy", o.From, err)
	}
	done, err := c.tags(ctx, copyJob{source: source, from: from, target: target, to: to}, o.Tags)
	if err == nil {
		err = target.Finish(ctx)
	}
	for _, one := range done {
		fmt.Fprintln(&e.Out, one)
	}
	return concerning("copy", o.From, err)
}

// newCopy understands the options.
func newCopy(e *env, o copyOptions) (c *copier, from, to place, err error) {
	if from, err = e.parsePlace(o.From); err != nil {
		return nil, from, to, err
	}
	if to, err = e.parsePlace(o.To); err != nil {
		return nil, from, to, err
	}
	if o.AllTags || len(o.Tags) > 0 {
		err = errors.Join(from.forTags(), to.forTags())
	}
	if o.AllTags && len(o.Tags) > 0 {
		err = &usageError{command: program + " copy", err: errors.New("--all-tags and --tags exclude each other")}
	}
	if err == nil {
		err = checkArchive(to)
	}
	if err != nil {
		return nil, from, to, err
	}
	c = &copier{env: e, all: o.All, quiet: o.Quiet}
	if c.platforms, err = platform.ParseAll(o.Platforms); err != nil {
		return nil, from, to, err
	}
	if c.limiter, err = parseRate(o.LimitRate); err != nil {
		return nil, from, to, &usageError{command: program + " copy", err: err}
	}
	var header []string
	if to.bare && to.kind == inRegistry && !o.AllTags && len(o.Tags) == 0 {
		header = []string{"Using default tag: latest"}
	}
	c.show = newProgress(e, o.Quiet, copyWords, append(header, fmt.Sprintf("Copying %s to %s", from, to))...)
	c.client, err = e.registryClient(c.show.update)
	return c, from, to, err
}

// parseRate reads bytes a second, nil for "".
func parseRate(s string) (*rate.Limiter, error) {
	if s == "" {
		return nil, nil
	}
	n, err := units.RAMInBytes(strings.TrimSuffix(s, "/s"))
	if err != nil || n <= 0 {
		return nil, fmt.Errorf("%q is no number of bytes a second", s)
	}
	return rate.NewLimiter(rate.Limit(n), registry.LimitedBurst), nil
}

// copier is one run of copy or sync.
type copier struct {
	env       *env
	client    *registry.Client
	show      *progress
	limiter   *rate.Limiter // nil: as fast as it goes
	platforms []v1.Platform // nil: all
	all       bool
	quiet     bool
	many      bool // images are not spoken of one by one
	toldLeft  bool
}
