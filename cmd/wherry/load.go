package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

type loadOptions struct {
	Input     string // a file; empty: stdin
	Quiet     bool
	Platforms []string // empty: all the archive has
}

func newLoadCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "Load an image from a tar archive or STDIN",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "Read from tar archive file, instead of STDIN"},
			platformsFlag("Load only the given platform(s)"),
			quietFlag("Suppress the load output"),
		},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			return runLoad(c.Context, e, loadOptions{
				Input: c.String("input"), Quiet: c.Bool("quiet"), Platforms: c.StringSlice("platform"),
			})
		},
	}
}

func runLoad(ctx context.Context, e *env, o loadOptions) error {
	platforms, err := platform.ParseAll(o.Platforms)
	if err != nil {
		return err
	}
	input := e.stdin(ctx)
	if o.Input != "" {
		f, err := os.Open(o.Input)
		if err != nil {
			return err
		}
		defer f.Close()
		input = untilInterrupted(ctx, f)
	} else if e.StdinTTY {
		return withHint(errors.New("stdin is a terminal, not an archive"), "%s load -i FILE.tar", program)
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	show := newProgress(e, o.Quiet || !e.StderrTTY, loadWords) // as docker: on a terminal only
	images, err := store.Load(ctx, input, layout.LoadOptions{Platforms: platforms, Progress: show.update})
	show.close()
	if err != nil {
		name := firstOf(o.Input, "stdin")
		if e, ok := errors.AsType[*layout.InvalidError](err); ok && e.What == "archive" {
			e.What = strconv.Quote(name)
		}
		return concerning("load", name, err)
	}
	for _, img := range images {
		if name := img.Name(); name != "" {
			fmt.Fprintln(&e.Out, "Loaded image:", familiarString(name))
		} else {
			fmt.Fprintln(&e.Out, "Loaded image ID:", img.Descriptor().Digest)
		}
	}
	return nil
}
