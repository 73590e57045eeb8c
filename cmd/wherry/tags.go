package main

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

type tagsOptions struct {
	Repository string
	Format     string
}

func newTagsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "tags",
		Usage:     "List the tags of a repository in a registry",
		ArgsUsage: "REPOSITORY",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Usage: "Format output using a custom template:\n" +
				"'table':            Print output in table format with column headers\n" +
				"'table TEMPLATE':   Print output in table format using the given Go template\n" +
				"'json':             Print in JSON format\n" +
				"'TEMPLATE':         Print output using the given Go template (default '{{.Tag}}')"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runTags(c.Context, e, tagsOptions{Repository: args[0], Format: c.String("format")})
		},
	}
}

// tagRow is a line of tags.
type tagRow struct {
	Name       string // to pull: "registry.corp/app:1"
	Repository string
	Tag        string
}

func runTags(ctx context.Context, e *env, o tagsOptions) error {
	repo, err := repositoryOf("tags", o.Repository)
	if err != nil {
		return err
	}
	name := reference.FamiliarName(repo)
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	tags, err := client.Tags(ctx, repo)
	if err != nil {
		return concerning("tags", o.Repository, err)
	}
	if len(tags) == 0 {
		e.say("%s has no tags", name)
	}
	rows := make([]tagRow, len(tags))
	for i, tag := range tags {
		rows[i] = tagRow{Name: name + ":" + tag, Repository: name, Tag: tag}
	}
	return writeList(&e.Out, listing{
		Format: firstOf(o.Format, "{{.Tag}}"),
		Table:  "{{.Repository}}\t{{.Tag}}",
		Header: map[string]string{"Name": "NAME", "Repository": "REPOSITORY", "Tag": "TAG"},
	}, rows)
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
