package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

type pruneRemoteOptions struct {
	Repository     string
	Match, Exclude []string
	Keep           *int // nil: not given
	OlderThan      string
	DryRun         bool
	Force          bool
	Format         string
}

func newPruneRemoteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "prune-remote",
		Usage:     "Delete old images of a repository in a registry",
		ArgsUsage: "REPOSITORY",
		Description: "Of the tags that match, those go that are neither among the newest nor young: at least one of\n" +
			"--match, --keep and --older-than says which. The age is the time of creation in the image, of an\n" +
			"index that of its newest image; what has none, or 1970 as reproducible builds write it, stays.\n" +
			"What a tag that stays needs is never deleted: 'wherry delete --help' says what goes with a tag.\n\n" + whatIsFreed,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "Only print what would be deleted, and what stays and why"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "Never touch tags that match this pattern; may be given more than once"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Do not prompt for confirmation"},
			&cli.StringFlag{Name: "format", Usage: "Format the output of --dry-run using a custom template:\n" +
				"'table':            Print output in table format with column headers (default)\n" +
				"'table TEMPLATE':   Print output in table format using the given Go template\n" +
				"'json':             Print in JSON format\n" +
				"'TEMPLATE':         Print output using the given Go template"},
			&cli.IntFlag{Name: "keep", Usage: "Keep this many images that match, the newest, with all their tags", DefaultText: "-"},
			&cli.StringSliceFlag{Name: "match", Usage: "Look only at tags that match this pattern, as pr-*; may be given more than once"},
			&cli.StringFlag{Name: "older-than", Usage: "Delete only what is older: 12h, 30d, 8w, or was made before 2026-01-31"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			o := pruneRemoteOptions{
				Repository: args[0], Match: c.StringSlice("match"), Exclude: c.StringSlice("exclude"),
				OlderThan: c.String("older-than"), DryRun: c.Bool("dry-run"), Force: c.Bool("force"), Format: c.String("format"),
			}
			if c.IsSet("keep") {
				keep := c.Int("keep")
				o.Keep = &keep
			}
			return runPruneRemote(c.Context, e, o)
		},
	}
}

func runPruneRemote(ctx context.Context, e *env, o pruneRemoteOptions) error {
	repo, err := repositoryOf("prune-remote", o.Repository)
	if err != nil {
		return err
	}
	rule, err := readRetention(o, time.Now())
	if err != nil {
		return &usageError{command: program + " prune-remote", err: err}
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	name := reference.FamiliarName(repo)
	holdings, err := client.Holdings(ctx, repo)
	if err != nil {
		return concerning("prune-remote", name, err)
	}
	verdicts, err := judge(ctx, holdings, rule)
	if err != nil {
		return concerning("prune-remote", name, err)
	}
	removal, err := holdings.Remove(ctx, registry.Selection{Tags: going(verdicts)})
	if err != nil {
		return concerning("prune-remote", name, err)
	}
	if o.DryRun {
		return e.printVerdicts(name, o.Format, verdicts, removal)
	}
	return e.pruneRemote(ctx, name, removal, o.Force)
}

// judge the tags, whose ages are asked for where they count.
func judge(ctx context.Context, h *registry.Holdings, rule registry.Retention) ([]registry.Verdict, error) {
	if rule.Dated() {
		var matched []string
		for _, t := range h.Tags() {
			if rule.Matches(t.Tag) {
				matched = append(matched, t.Tag)
			}
		}
		if err := h.Describe(ctx, matched); err != nil {
			return nil, err
		}
	}
	return rule.Judge(h.Tags()), nil
}

func going(verdicts []registry.Verdict) []string {
	var tags []string
	for _, v := range verdicts {
		if v.Goes {
			tags = append(tags, v.Tag)
		}
	}
	return tags
}

// pruneRemote asks, and deletes.
func (e *env) pruneRemote(ctx context.Context, name string, removal *registry.Removal, force bool) error {
	if len(removal.Tags) == 0 {
		e.say("nothing to delete in %s", name)
		return nil
	}
	if !force {
		shown := removal.Tags
		if len(shown) > 20 {
			shown = append(slices.Clone(shown[:19]), fmt.Sprintf("and %d more, which --dry-run lists", len(removal.Tags)-19))
		}
		question := fmt.Sprintf("WARNING! This will delete %s from %s:\n  %s\nAre you sure you want to continue?",
			amount(removal), name, strings.Join(shown, "\n  "))
		if sure, err := e.confirm(ctx, question); err != nil || !sure {
			return err
		}
	}
	err := removal.Delete(ctx, e.tellDeleted(name))
	if err != nil {
		return errors.Join(concerning("prune-remote", name, err), e.flush())
	}
	return nil
}

// amount is "3 tags and 7 manifests".
func amount(r *registry.Removal) string {
	return counted(len(r.Tags), "tag") + " and " + counted(len(r.Manifests), "manifest")
}

// readRetention of the flags. None at all would mean everything.
func readRetention(o pruneRemoteOptions, now time.Time) (registry.Retention, error) {
	if o.Format != "" && !o.DryRun {
		return registry.Retention{}, errors.New("--format is for --dry-run")
	}
	rule := registry.Retention{Match: o.Match, Exclude: o.Exclude, Keep: o.Keep}
	if len(o.Match) == 0 && o.Keep == nil && o.OlderThan == "" {
		return rule, errors.New("want --match, --keep or --older-than: all tags of a repository are not deleted at once")
	}
	if o.Keep != nil && *o.Keep < 0 {
		return rule, fmt.Errorf("--keep %d is less than nothing", *o.Keep)
	}
	if o.OlderThan != "" {
		before, ok := parseAge(o.OlderThan, now)
		if !ok {
			return rule, fmt.Errorf("invalid age %q: want 12h, 30d, 8w or 2026-01-31", o.OlderThan)
		}
		rule.Before = before
	}
	return rule, rule.Check()
}

// parseAge is parseMoment that also knows days and weeks, of 24 hours and seven of
// these.
func parseAge(s string, now time.Time) (time.Time, bool) {
	for unit, days := range map[string]int{"d": 1, "w": 7} {
		if n, err := strconv.Atoi(strings.TrimSuffix(s, unit)); err == nil && strings.HasSuffix(s, unit) && n >= 0 && n < 100_000 {
			return now.Add(-time.Duration(n*days) * 24 * time.Hour), true
		}
	}
	return parseMoment(s, now)
}

// verdictRow is a line of prune-remote --dry-run.
type verdictRow struct {
	Tag          string
	Digest       string
	CreatedAt    string // RFC 3339; "" if there is none
	CreatedSince string
	Action       string // "delete" or "keep"
	Reason       string
}

func (e *env) printVerdicts(name, format string, verdicts []registry.Verdict, removal *registry.Removal) error {
	rows := make([]verdictRow, len(verdicts))
	for i, v := range verdicts {
		rows[i] = verdictRow{Tag: v.Tag, Digest: v.Descriptor.Digest.String(), Action: "keep", Reason: v.Why, CreatedSince: "N/A"}
		if v.Goes {
			rows[i].Action = "delete"
		}
		if at := v.About.Created; !at.IsZero() {
			rows[i].CreatedAt = at.Format(time.RFC3339)
			rows[i].CreatedSince = units.HumanDuration(time.Since(at)) + " ago"
		}
	}
	err := writeList(&e.Out, listing{
		Format: format,
		Table:  "{{.Tag}}\t{{.Action}}\t{{.CreatedSince}}\t{{.Reason}}",
		Header: map[string]string{
			"Tag": "TAG", "Digest": "DIGEST", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Action": "ACTION", "Reason": "REASON",
		},
	}, rows)
	e.note(fmt.Sprintf("%s of %s would be deleted, and nothing was", amount(removal), name))
	return err
}
