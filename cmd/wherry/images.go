package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type imagesOptions struct {
	Match   string // REPOSITORY[:TAG]
	All     bool
	Digests bool
	NoTrunc bool
	Quiet   bool
	Tree    bool
	Format  string
	Filters []string
}

func newImagesCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "images",
		Usage:     "List images",
		ArgsUsage: "[REPOSITORY[:TAG]]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "Show all images (default hides dangling images)"},
			&cli.BoolFlag{Name: "digests", Usage: "Show digests"},
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "Filter output based on conditions provided\n" +
				"(dangling=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE, since=IMAGE,\n" +
				"until=TIME, reference=PATTERN)"},
			formatFlag(),
			&cli.BoolFlag{Name: "no-trunc", Usage: "Don't truncate output"},
			quietFlag("Only show image IDs"),
			&cli.BoolFlag{Name: "tree", Usage: "List the platforms below each image; EXTRA says which ones are present"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 0, 1)
			if err != nil {
				return err
			}
			o := imagesOptions{
				Match: firstOf(args...), All: c.Bool("all"), Digests: c.Bool("digests"), NoTrunc: c.Bool("no-trunc"),
				Quiet: c.Bool("quiet"), Tree: c.Bool("tree"), Format: c.String("format"), Filters: c.StringSlice("filter"),
			}
			if flag := o.noTree(); o.Tree && flag != "" {
				return &usageError{command: commandPath(c), err: fmt.Errorf("--%s is not supported with --tree", flag)}
			}
			return runImages(c.Context, e, o)
		},
	}
}

// noTree is a flag that was given and means nothing to a tree, as in docker.
func (o imagesOptions) noTree() string {
	switch {
	case o.Quiet:
		return "quiet"
	case o.NoTrunc:
		return "no-trunc"
	case o.Digests:
		return "digests"
	case o.Format != "":
		return "format"
	}
	return ""
}

// imageRow is a line of images. Its fields are those of docker's templates, in
// the order of docker's JSON.
type imageRow struct {
	Containers   string // no containers here: always N/A, like the two sizes
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
}

func runImages(ctx context.Context, e *env, o imagesOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	filter, err := o.filter(store)
	if err != nil {
		return err
	}
	list, err := store.List()
	if err != nil {
		return err
	}
	images, err := filter.choose(ctx, store, list, e.sayUnread)
	if err != nil {
		return err
	}
	if len(images) == 0 {
		e.sayMistaken(o.Match)
	}
	if o.Tree {
		return runTree(ctx, e, store, images)
	}
	newestFirst(images)
	now := time.Now()
	rows := make([]imageRow, len(images))
	for i, img := range images {
		rows[i] = newImageRow(img, now, o.NoTrunc)
	}
	return writeList(&e.Out, imagesListing(o), rows)
}

// sayMistaken helps who types "images ls" and gets an empty list.
func (e *env) sayMistaken(match string) {
	if slices.Contains([]string{"build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm", "save", "tag"}, match) {
		e.say("No images found matching %q: did you mean \"%s image %[1]s\"?", match, program)
	}
}

func (o imagesOptions) filter(store *layout.Store) (*imageFilter, error) {
	f, err := filterReader{command: program + " images", keys: listFilters(), now: time.Now(), find: store.Find}.read(o.Filters)
	if err != nil {
		return nil, err
	}
	if f.dangling == nil && !o.All {
		f.dangling = new(bool)
	}
	if o.Match != "" {
		f.references = append(f.references, o.Match)
	}
	return f, nil
}

func newestFirst(images []listedImage) {
	slices.SortStableFunc(images, func(a, b listedImage) int {
		return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.Name(), b.Name()))
	})
}

func imagesListing(o imagesOptions) listing {
	table, raw := "{{.Repository}}\t{{.Tag}}\t", "repository: {{.Repository}}\ntag: {{.Tag}}\n"
	if o.Digests {
		table += "{{.Digest}}\t"
		raw += "digest: {{.Digest}}\n"
		if strings.HasPrefix(o.Format, "table ") && !strings.Contains(o.Format, ".Digest") {
			o.Format += "\t{{.Digest}}"
		}
	}
	raw += "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
	if o.Quiet {
		raw = "image_id: {{.ID}}"
	}
	return listing{
		Format: o.Format,
		Raw:    raw,
		Quiet:  o.Quiet,
		Table:  table + "{{.ID}}\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}",
		Header: map[string]string{
			"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
			"CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE",
			"UniqueSize": "UNIQUE SIZE",
		},
	}
}

func newImageRow(img listedImage, now time.Time, noTrunc bool) imageRow {
	repo, tag, _ := splitName(img.Name())
	digest := img.Descriptor().Digest.String()
	row := imageRow{
		Containers: "N/A",
		Digest:     digest,
		ID:         digest,
		Repository: firstOf(repo, none),
		SharedSize: "N/A",
		Size:       humanSize(img.Size()),
		Tag:        firstOf(tag, none),
		UniqueSize: "N/A",
	}
	if !noTrunc {
		row.ID = shortID(digest)
	}
	if created := img.created; !created.IsZero() {
		row.CreatedAt = created.Local().Format("2006-01-02 15:04:05 -0700 MST")
		row.CreatedSince = units.HumanDuration(now.Sub(created)) + " ago"
	}
	return row
}

// humanSize writes bytes in decimal units with three significant digits: "1.08GB".
func humanSize(bytes int64) string {
	return units.HumanSizeWithPrecision(float64(bytes), 3)
}
