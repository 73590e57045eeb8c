package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/mattn/go-runewidth"
	"github.com/urfave/cli/v2"
)

type historyOptions struct {
	Ref      string
	Platform string
	Format   string
	Exact    bool // --human=false: bytes and RFC 3339
	NoTrunc  bool
	Quiet    bool
}

func newHistoryCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "Show the history of an image",
		Description: "SIZE is that of the layer as the store has it and registries send it: compressed. docker without\n" +
			"its containerd store shows unpacked sizes.",
		ArgsUsage: "IMAGE",
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "human", Aliases: []string{"H"}, Value: true, Usage: "Print sizes and dates in human readable format (default true)"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "Don't truncate output"},
			&cli.StringFlag{Name: "platform", Usage: "Show history for the given platform (as \"os[/arch[/variant]]\")"},
			quietFlag("Only show image IDs"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runHistory(e, historyOptions{
				Ref: args[0], Platform: c.String("platform"), Format: c.String("format"),
				Exact: !c.Bool("human"), NoTrunc: c.Bool("no-trunc"), Quiet: c.Bool("quiet"),
			})
		},
	}
}

// historyRow is a line of history, with the fields of docker's templates.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

func runHistory(e *env, o historyOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	list, err := store.List()
	if err != nil {
		return err
	}
	img, err := imageFinder{store: store, list: list, platform: o.Platform, note: e.note}.find(o.Ref)
	if err != nil {
		return concerning("history", o.Ref, err)
	}
	config, err := img.image.Config()
	if err != nil {
		return concerning("history", o.Ref, err)
	}
	manifest, err := img.image.Manifest()
	if err != nil {
		return concerning("history", o.Ref, err)
	}
	rows := historyRows(config.History, manifest.Layers, o)
	if len(rows) > 0 {
		rows[0].ID = img.id.String()
		if !o.NoTrunc {
			rows[0].ID = shortID(rows[0].ID)
		}
	}
	return writeList(&e.Out, historyListing(o), rows)
}

func historyListing(o historyOptions) listing {
	created := "{{.CreatedSince}}"
	if o.Exact {
		created = "{{.CreatedAt}}"
	}
	return listing{
		Format: o.Format,
		Quiet:  o.Quiet,
		Table:  "{{.ID}}\t" + created + "\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
		Header: map[string]string{
			"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
			"Size": "SIZE", "Comment": "COMMENT",
		},
	}
}

// historyRows lists the steps, newest first. A step that made a layer has that
// layer's size as it is stored and sent (compressed); the others have none.
func historyRows(steps []v1.History, layers []v1.Descriptor, o historyOptions) []historyRow {
	rows := make([]historyRow, len(steps))
	now := time.Now()
	for i, step := range steps {
		var size int64
		if !step.EmptyLayer && len(layers) > 0 {
			size, layers = layers[0].Size, layers[1:]
		}
		rows[len(steps)-1-i] = newHistoryRow(step, size, now, o)
	}
	return rows
}

func newHistoryRow(step v1.History, size int64, now time.Time, o historyOptions) historyRow {
	row := historyRow{
		Comment:      oneLine(step.Comment),
		CreatedAt:    step.Created.Local().Format(time.RFC3339),
		CreatedBy:    oneLine(step.CreatedBy),
		CreatedSince: "N/A",
		ID:           "<missing>",
		Size:         strconv.FormatInt(size, 10),
	}
	if step.Created.Year() >= 2000 { // older times stand for "unknown": reproducible builds write 0
		row.CreatedSince = units.HumanDuration(now.Sub(step.Created.Time)) + " ago"
	}
	if o.Exact {
		row.CreatedSince = row.CreatedAt
	} else {
		row.Size = humanSize(size)
	}
	if !o.NoTrunc {
		row.CreatedBy = runewidth.Truncate(row.CreatedBy, 45, "…")
	}
	return row
}

// oneLine keeps the steps of a heredoc from breaking the table.
func oneLine(s string) string {
	return strings.NewReplacer("\t", " ", "\r\n", " ", "\n", " ", "\r", " ").Replace(s)
}
