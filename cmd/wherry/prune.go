package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type pruneOptions struct {
	All     bool
	Filters []string
	Force   bool
}

// newPruneCommand is image prune.
func newPruneCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "Remove unused images",
		Description: "Removes the images that have no name. With --all it removes every image: there are\n" +
			"no containers here that could use one.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "Remove all images, not just dangling ones"},
			&cli.StringSliceFlag{Name: "filter", Usage: "Only remove what these conditions all hold for\n" +
				"(until=24h, until=2026-01-31T12:00:00, label=KEY[=VALUE], label!=KEY[=VALUE])"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Do not prompt for confirmation"},
		},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			return runPrune(c.Context, e, pruneOptions{All: c.Bool("all"), Filters: c.StringSlice("filter"), Force: c.Bool("force")})
		},
	}
}

func runPrune(ctx context.Context, e *env, o pruneOptions) error {
	filter, err := filterReader{command: program + " image prune", keys: pruneFilters(), now: time.Now()}.read(o.Filters)
	if err != nil {
		return err
	}
	if !o.All {
		dangling := true
		filter.dangling = &dangling
	}
	if !o.Force {
		if sure, err := e.confirm(ctx, pruneWarning(o)); err != nil || !sure {
			return err
		}
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	removed, err := store.Prune(ctx, func(all []*layout.Image) ([]*layout.Image, error) {
		chosen, err := filter.choose(ctx, store, all, e.sayUnread)
		images := make([]*layout.Image, len(chosen))
		for i, one := range chosen {
			images[i] = one.Image
		}
		return images, err
	})
	if removed == nil {
		return err
	}
	if len(removed.Untagged)+len(removed.Deleted) > 0 {
		fmt.Fprintln(&e.Out, "Deleted Images:")
		e.printRemoved(removed, "untagged:", "deleted:")
		fmt.Fprintln(&e.Out)
	}
	fmt.Fprintln(&e.Out, "Total reclaimed space:", units.HumanSize(float64(removed.Collected.Bytes)))
	return e.collected(ctx, removed.Collected, err)
}

// pruneWarning says in docker's words what is about to be removed, and where
// docker speaks of containers, what that means without any.
func pruneWarning(o pruneOptions) string {
	what := "all dangling images."
	if o.All {
		what = "all images: there are no containers here, so no image counts as used."
	}
	text := "WARNING! This will remove " + what + "\n"
	if len(o.Filters) > 0 {
		text += "\n  Items to be pruned will be filtered with:\n  - " + strings.Join(o.Filters, "\n  - ") + "\n\n"
	}
	return text + "Are you sure you want to continue?"
}

// confirm asks a question on stderr. Only a y means yes; the end of stdin is no.
func (e *env) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(e.Stderr, question+" [y/N] ")
	answer, err := readLine(e.stdin(ctx))
	if !e.StdinTTY || err != nil {
		fmt.Fprintln(e.Stderr) // nobody typed the end of the line
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return strings.EqualFold(answer, "y"), err
}

// sayUnread tells that an image was left out of what a filter for labels chose.
func (e *env) sayUnread(img *layout.Image, err error) {
	e.say("note: %s is left out, its labels can't be read: %s",
		firstOf(familiarString(img.Name()), shortID(img.Descriptor().Digest.String())), printable(err.Error()))
}

// collected tells what kept the content of removed images from being freed. That
// the images are gone stands, and what could not be freed is by the next one who
// removes something.
func (e *env) collected(ctx context.Context, c layout.Collected, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		e.say("note: nothing is freed yet: %s\nhint: %s check --repair", printable(err.Error()), program)
	case c.Busy:
		e.say("note: nothing is freed yet, because images are being added at this moment; later: %s image prune", program)
	}
	return nil
}
