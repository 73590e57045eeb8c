package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
)

type syncOptions struct {
	File      string // "-": stdin
	To        string // where images go of which the list does not say it
	DryRun    bool
	Jobs      int
	LimitRate string
	Quiet     bool
}

const syncJobs = 4 // repositories that are written to at a time

func newSyncCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "Copy all images of a list that are not there yet",
		ArgsUsage: "FILE|-",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "Only say what would be copied"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "Copy into this many repositories at a time", DefaultText: fmt.Sprint(syncJobs)},
			limitRateFlag(),
			quietFlag("Suppress verbose output"),
			&cli.StringFlag{Name: "to", Usage: "Put images below this registry or repository, or into this layout (oci:DIR)"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runSync(c.Context, e, syncOptions{
				File: args[0], To: c.String("to"), DryRun: c.Bool("dry-run"), Jobs: c.Int("jobs"),
				LimitRate: c.String("limit-rate"), Quiet: c.Bool("quiet"),
			})
		},
	}
}

func runSync(ctx context.Context, e *env, o syncOptions) error {
	list, err := openSyncList(ctx, e, o)
	if err != nil {
		return err
	}
	for _, note := range list.notes {
		e.note(note)
	}
	limiter, err := parseRate(o.LimitRate)
	if err != nil || o.Jobs < 0 {
		return &usageError{command: program + " sync", err: errors.Join(err, negativeJobs(o.Jobs))}
	}
	c := &copier{env: e, quiet: o.Quiet, many: true, limiter: limiter}
	c.show = newProgress(e, o.Quiet || !e.StderrTTY, copyWords)
	defer c.show.close()
	if c.client, err = e.registryClient(c.show.update); err != nil {
		return err
	}
	s := &syncRun{copier: c, jobs: firstInt(o.Jobs, list.jobs, syncJobs)}
	defer s.close()
	s.plan(ctx, list.entries)
	if o.DryRun {
		return s.tell(ctx)
	}
	s.copyAll(ctx)
	return s.summary(ctx)
}

func negativeJobs(n int) error {
	if n < 0 {
		return fmt.Errorf("--jobs %d", n)
	}
	return nil
}

func firstInt(list ...int) int {
	for _, n := range list {
		if n > 0 {
			return n
		}
	}
	return 0
}

func openSyncList(ctx context.Context, e *env, o syncOptions) (*syncList, error) {
	var r io.Reader = e.stdin(ctx)
	if o.File != "-" {
		f, err := os.Open(o.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	list, err := readSyncList(r, o.To)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", firstOf(o.File), err)
	}
	if len(list.entries) == 0 {
		return nil, fmt.Errorf("%q: there are no images in it", o.File)
	}
	return list, nil
}
