package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

func indexLsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "List the drafts of indexes",
		Flags: []cli.Flag{formatFlag(), quietFlag("Print the names only")},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			return runIndexLs(c.Context, e, c.String("format"), c.Bool("quiet"))
		},
	}
}

// indexRow is a draft with the fields of templates.
type indexRow struct {
	Digest    string
	Images    string
	Name      string
	Platforms string
}

func runIndexLs(ctx context.Context, e *env, format string, quiet bool) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	names, err := store.DraftNames()
	if err != nil {
		return err
	}
	slices.Sort(names)
	var rows []indexRow
	for _, name := range names {
		d, err := store.Draft(ctx, name)
		if errors.As(err, new(*layout.NotFoundError)) {
			continue // it is gone since
		}
		if err != nil {
			return err
		}
		rows = append(rows, newIndexRow(d))
	}
	table := "{{.Name}}\t{{.Images}}\t{{.Platforms}}"
	if quiet && format == "" {
		format = "{{.Name}}"
	}
	return writeList(&e.Out, listing{
		Format: format, Table: table,
		Header: map[string]string{"Name": "INDEX", "Images": "IMAGES", "Platforms": "PLATFORMS", "Digest": "DIGEST"},
	}, rows)
}

func newIndexRow(d *layout.Draft) indexRow {
	images := imagesIn(d.Members)
	on := make([]string, len(images))
	for i, m := range images {
		on[i] = firstOf(platformText(m.Descriptor.Platform), "unknown")
	}
	return indexRow{
		Name: familiarString(d.Name()), Images: strconv.Itoa(len(images)), Platforms: strings.Join(on, ", "),
		Digest: d.Descriptor().Digest.String(),
	}
}

// imagesIn are the members that are no attestations.
func imagesIn(members []layout.Member) []layout.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m layout.Member) bool { return platform.IsAttestation(m.Descriptor) })
}
