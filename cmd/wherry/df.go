package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type dfOptions struct {
	Format  string
	Verbose bool
}

// newDfCommand is system df.
func newDfCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "df",
		Usage: "Show what the store takes on the disk",
		Description: "RECLAIMABLE is what goes free if all images, or the cache of builds, are removed. What the two\n" +
			"share is counted with the images.",
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "Show detailed information on space usage"},
		},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			return runDf(c.Context, e, dfOptions{Format: c.String("format"), Verbose: c.Bool("verbose")})
		},
	}
}

// dfRow is a line of system df, with the fields of docker's templates.
type dfRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

// dfDetails is what a template of system df -v may use. Of containers and volumes
// there are none, and the cache of builds has no parts to show.
type dfDetails struct {
	Images     []imageRow
	Containers []struct{}
	Volumes    []struct{}
	BuildCache []struct{}
}

func runDf(ctx context.Context, e *env, o dfOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	images, err := store.List()
	if err != nil {
		return err
	}
	shared := map[fileID]bool{} // with the cache of builds
	usage, err := store.Usage(ctx, func(fi fs.FileInfo) {
		id, _ := identify(fi)
		shared[id] = true
	})
	if err != nil {
		return err
	}
	cache, err := buildCacheUsage(ctx, filepath.Join(store.Dir(), buildStateName), shared)
	if err != nil {
		return err
	}
	if cache.hidden {
		e.say("note: a part of the build cache belongs to other users and is not counted")
	}
	if o.Verbose {
		shared, err := store.SharedSizes(ctx, images)
		if err != nil {
			return err
		}
		return writeUsageDetails(e, o, oneOfEach(images), shared, cache)
	}
	nothing := units.HumanSize(0)
	return writeList(&e.Out, dfListing(o), []dfRow{
		{
			Type: "Images", TotalCount: strconv.Itoa(len(oneOfEach(images))), Active: "0",
			Size: units.HumanSize(float64(usage.Bytes)), Reclaimable: share(usage.Own, usage.Bytes),
		},
		{Type: "Containers", TotalCount: "0", Active: "0", Size: nothing, Reclaimable: nothing},
		{Type: "Local Volumes", TotalCount: "0", Active: "0", Size: nothing, Reclaimable: nothing},
		{
			Type: "Build Cache", TotalCount: strconv.Itoa(cache.snapshots), Active: "0",
			Size: units.HumanSize(float64(cache.bytes)), Reclaimable: units.HumanSize(float64(cache.bytes)),
		},
	})
}

// share is "1.2GB (60%)".
func share(part, all int64) string {
	text := units.HumanSize(float64(part))
	if all > 0 {
		text += fmt.Sprintf(" (%d%%)", part*100/all)
	}
	return text
}

func dfListing(o dfOptions) listing {
	return listing{
		Format: o.Format,
		Table:  "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
		Raw:    "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n",
		Header: map[string]string{
			"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
		},
	}
}

// oneOfEach keeps the first entry of every digest: an image is there once,
// whatever its names.
func oneOfEach(images []*layout.Image) []listedImage {
	seen := make(map[v1.Hash]bool, len(images))
	var distinct []listedImage
	for _, img := range images {
		if h := img.Descriptor().Digest; !seen[h] {
			seen[h] = true
			distinct = append(distinct, listedImage{img, img.Created()})
		}
	}
	return distinct
}

func writeUsageDetails(e *env, o dfOptions, images []listedImage, shared map[v1.Hash]int64, cache cacheUsage) error {
	newestFirst(images)
	table := o.Format == "" || o.Format == "table"
	now := time.Now()
	rows := make([]imageRow, len(images))
	for i, img := range images {
		part := shared[img.Descriptor().Digest]
		rows[i] = newImageRow(img, now, !table)
		rows[i].SharedSize = units.HumanSize(float64(part))
		rows[i].UniqueSize = units.HumanSize(float64(img.Size() - part))
		rows[i].Containers = "0"
	}
	if !table {
		return writeTemplate(&e.Out, unescaped(strings.TrimPrefix(o.Format, "table ")), "", dfDetails{
			Images: rows, Containers: []struct{}{}, Volumes: []struct{}{}, BuildCache: []struct{}{},
		})
	}
	fmt.Fprint(&e.Out, "Images space usage:\n\n")
	l := imagesListing(imagesOptions{})
	l.Table += "\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"
	if err := writeList(&e.Out, l, rows); err != nil {
		return err
	}
	fmt.Fprint(&e.Out, "\nContainers space usage:\n\n")
	if err := writeHeader(e, "CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"); err != nil {
		return err
	}
	fmt.Fprint(&e.Out, "\nLocal Volumes space usage:\n\n")
	if err := writeHeader(e, "VOLUME NAME", "LINKS", "SIZE"); err != nil {
		return err
	}
	fmt.Fprintf(&e.Out, "\nBuild cache usage: %s\n", units.HumanSize(float64(cache.bytes)))
	return nil
}

// writeHeader is a table without rows.
func writeHeader(e *env, titles ...string) error {
	l := listing{Header: map[string]string{}}
	for i, title := range titles {
		field := fmt.Sprintf("Column%d", i)
		l.Header[field] = title
		l.Table += "{{." + field + "}}\t"
	}
	l.Table = strings.TrimSuffix(l.Table, "\t")
	return writeList(&e.Out, l, []struct{}{})
}
