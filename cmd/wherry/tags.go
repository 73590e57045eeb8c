package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

type tagsOptions struct {
	Repository     string
	Match, Exclude []string
	OmitDigestTags bool
	Long           bool
	Format         string
}

func newTagsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "tags",
		Usage:     "List the tags of a repository in a registry",
		ArgsUsage: "REPOSITORY",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "exclude", Usage: "Leave out tags that match this pattern; may be given more than once"},
			&cli.StringFlag{Name: "format", Usage: "Format output using a custom template:\n" +
				"'table':            Print output in table format with column headers\n" +
				"'table TEMPLATE':   Print output in table format using the given Go template\n" +
				"'json':             Print in JSON format\n" +
				"'TEMPLATE':         Print output using the given Go template (default '{{.Tag}}')"},
			&cli.BoolFlag{Name: "long", Aliases: []string{"l"}, Usage: "Also show the digest, the time of creation and the size, which takes some requests a tag"},
			&cli.StringSliceFlag{Name: "match", Usage: "List only tags that match this pattern, as v1.*; may be given more than once"},
			&cli.BoolFlag{Name: "omit-digest-tags", Usage: "Leave out the tags that stand in for signatures and the like, as sha256-HEX.sig"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runTags(c.Context, e, tagsOptions{
				Repository: args[0], Match: c.StringSlice("match"), Exclude: c.StringSlice("exclude"),
				OmitDigestTags: c.Bool("omit-digest-tags"), Long: c.Bool("long"), Format: c.String("format"),
			})
		},
	}
}

// tagRow is a line of tags.
type tagRow struct {
	Name       string // to pull: "registry.corp/app:1"
	Repository string
	Tag        string

	// With --long, or where --format names one of them.
	Digest       string `json:",omitempty"`
	CreatedAt    string `json:",omitempty"` // RFC 3339
	CreatedSince string `json:",omitempty"`
	Size         string `json:",omitempty"`
}

// longFields are what a template asks for that a list of tags does not tell.
var longFields = regexp.MustCompile(`\.(Digest|Created|Size)`)

func runTags(ctx context.Context, e *env, o tagsOptions) error {
	repo, err := repositoryOf("tags", o.Repository)
	if err != nil {
		return err
	}
	patterns := registry.Retention{Match: o.Match, Exclude: o.Exclude}
	if err := patterns.Check(); err != nil {
		return &usageError{command: program + " tags", err: err}
	}
	wanted := func(tag string) bool {
		_, standsIn := registry.IsReferrersTag(tag)
		return patterns.Matches(tag) && !(standsIn && o.OmitDigestTags)
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	o.Long = o.Long || longFields.MatchString(o.Format)
	rows, err := tagRows(ctx, client, repo, wanted, o.Long)
	if err != nil {
		return concerning("tags", o.Repository, err)
	}
	if len(rows) == 0 {
		e.say("%s has no tags%s", reference.FamiliarName(repo), map[bool]string{true: " that match"}[len(o.Match)+len(o.Exclude) > 0])
	}
	format := o.Format
	if format == "" && !o.Long {
		format = "{{.Tag}}"
	}
	table := "{{.Repository}}\t{{.Tag}}"
	if o.Long {
		table = "{{.Tag}}\t{{.Digest}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return writeList(&e.Out, listing{
		Format: format,
		Table:  table,
		Header: map[string]string{
			"Name": "NAME", "Repository": "REPOSITORY", "Tag": "TAG",
			"Digest": "DIGEST", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Size": "SIZE",
		},
	}, rows)
}

// tagRows are the tags that are wanted, with all that is known of them if long.
func tagRows(ctx context.Context, client *registry.Client, repo reference.Named, wanted func(string) bool, long bool) ([]tagRow, error) {
	name := reference.FamiliarName(repo)
	rows := []tagRow{}
	if !long {
		tags, err := client.Tags(ctx, repo)
		for _, tag := range tags {
			if wanted(tag) {
				rows = append(rows, tagRow{Name: name + ":" + tag, Repository: name, Tag: tag})
			}
		}
		return rows, err
	}
	holdings, err := client.Look(ctx, repo, wanted)
	if err == nil {
		err = holdings.Describe(ctx, tagsOf(holdings.All()))
	}
	if err != nil {
		return nil, err
	}
	for _, h := range holdings.All() {
		row := tagRow{
			Name: name + ":" + h.Tag, Repository: name, Tag: h.Tag, Digest: h.Descriptor.Digest.String(),
			CreatedSince: "N/A", Size: humanSize(h.About.Size),
		}
		if at := h.About.Created; !at.IsZero() {
			row.CreatedAt, row.CreatedSince = at.Format(time.RFC3339), units.HumanDuration(time.Since(at))+" ago"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func tagsOf(holdings []registry.Holding) []string {
	tags := make([]string, len(holdings))
	for i, h := range holdings {
		tags[i] = h.Tag
	}
	return tags
}

// repositoryOf reads an operand that is a repository and no image of it.
func repositoryOf(command, typed string) (reference.Named, error) {
	repo, err := registry.ParseReference(typed)
	if err != nil {
		return nil, err
	}
	if written, err := reference.ParseNormalizedNamed(typed); err != nil || !reference.IsNameOnly(written) {
		return nil, withHint(fmt.Errorf("%q is one image, not a repository", typed), "%s %s %s", program, command, reference.FamiliarName(repo))
	}
	return repo, nil
}
