package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type saveOptions struct {
	Refs      []string
	Output    string   // a file; empty: stdout
	Platforms []string // empty: all the store has
}

func newSaveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "Save one or more images to a tar archive (streamed to STDOUT by default)",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "Write to a file, instead of STDOUT (compressed if it ends in .gz, .tgz, .zst or .tzst)"},
			platformsFlag("Save only the given platform(s)"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			return runSave(c.Context, e, saveOptions{
				Refs: args, Output: c.String("output"), Platforms: c.StringSlice("platform"),
			})
		},
	}
}

func runSave(ctx context.Context, e *env, o saveOptions) error {
	if o.Output == "" && e.StdoutTTY {
		return withHint(errors.New("cowardly refusing to save to a terminal"), "%s save -o FILE.tar %s", program, o.Refs[0])
	}
	platforms, err := platform.ParseAll(o.Platforms)
	if err != nil {
		return err
	}
	packed, err := compressionOf(o)
	if err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	all, err := store.List()
	if err != nil {
		return err
	}
	var images []*layout.Image
	for _, ref := range o.Refs {
		img, err := imageToSave(ctx, store, all, ref)
		if err != nil {
			return concerning("save", ref, err)
		}
		images = append(images, img)
	}
	write := func(w io.Writer) error {
		return store.Save(ctx, w, images, layout.SaveOptions{Platforms: platforms, Compression: packed})
	}
	if o.Output == "" {
		err = write(e.Stdout)
	} else {
		err = writeFile(o.Output, write)
	}
	return concerning("save", o.Refs[0], err)
}

// compressionOf is what the ending of the file promises.
func compressionOf(o saveOptions) (layout.Compression, error) {
	ending := filepath.Ext(o.Output)
	switch strings.ToLower(ending) {
	case ".gz", ".tgz":
		return layout.Gzip, nil
	case ".zst", ".tzst":
		return layout.Zstd, nil
	case ".xz", ".txz", ".bz2", ".tbz", ".tbz2":
		err := fmt.Errorf("%q: save compresses with gzip and zstd only", o.Output)
		return "", withHint(err, "%s save -o %s.zst %s", program, strings.TrimSuffix(o.Output, ending), strings.Join(o.Refs, " "))
	default:
		return layout.Uncompressed, nil
	}
}

// imageToSave finds what a user typed in all that there is; an image that was asked for by its ID is
// saved without a name, as docker does.
func imageToSave(ctx context.Context, store *layout.Store, all []*layout.Image, ref string) (*layout.Image, error) {
	found, err := store.FindAmong(ctx, all, ref)
	if err != nil {
		return nil, err
	}
	if named, err := registry.ParseReference(ref); err == nil {
		for _, img := range found {
			if img.Name() == named.String() {
				return img, nil
			}
		}
	}
	return found[0].Unnamed(), nil
}
