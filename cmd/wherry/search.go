package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

// docker's number of results, where none is asked for, and the most there are.
const (
	defaultSearchLimit = 25
	maxSearchLimit     = 100
)

type searchOptions struct {
	Term    string // [HOST/]TERM
	Filters []string
	Format  string
	Limit   int // 0: docker's 25
	NoTrunc bool
}

func newSearchCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "search",
		Usage:     "Search Docker Hub for images",
		ArgsUsage: "TERM",
		Description: "REGISTRY/TERM searches another registry: by the search it has, else by the names in its\n" +
			"catalog. REGISTRY/ alone lists the catalog.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "Filter output based on conditions provided\n" +
				"(stars=N, is-official=BOOL)"},
			formatFlag(),
			&cli.IntFlag{Name: "limit", Usage: "Max number of search results (default: 25)"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "Don't truncate output"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runSearch(c.Context, e, searchOptions{
				Term: args[0], Filters: c.StringSlice("filter"), Format: c.String("format"),
				Limit: c.Int("limit"), NoTrunc: c.Bool("no-trunc"),
			})
		},
	}
}

// searchRow is a line of search. Its fields are those of docker's templates.
type searchRow struct {
	Description string
	IsAutomated string // docker has nothing to say here any more
	IsOfficial  string // "[OK]" or nothing
	Name        string
	StarCount   string
}

// MarshalJSON has words where a table has marks, as docker's JSON does.
func (r searchRow) MarshalJSON() ([]byte, error) {
	type plain searchRow
	p := plain(r)
	p.IsOfficial, p.IsAutomated = strconv.FormatBool(r.IsOfficial != ""), "false"
	return json.Marshal(p)
}

func runSearch(ctx context.Context, e *env, o searchOptions) error {
	host, term, err := splitSearch(o)
	if err != nil {
		return &usageError{command: program + " search", err: err}
	}
	keep, err := newSearchFilter(o.Filters)
	if err != nil {
		return &usageError{command: program + " search", err: err}
	}
	if keep.automated != nil {
		e.say(`WARNING: the "is-automated" filter is deprecated, and searching for "is-automated=true" will not yield any results in future.`)
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	limit := o.Limit
	if limit == 0 {
		limit = defaultSearchLimit
	}
	found, err := client.Search(ctx, host, term, limit)
	if err != nil {
		return concerning("search", o.Term, err)
	}
	var rows []searchRow
	for _, r := range found {
		if keep.match(r) {
			rows = append(rows, newSearchRow(r, o.NoTrunc))
		}
	}
	return writeList(&e.Out, listing{
		Format: o.Format,
		Table:  "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
		Header: map[string]string{
			"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED",
		},
	}, rows)
}

// splitSearch tells the registry from the term by docker's rule: what comes
// before the first slash is a host if it looks like one.
func splitSearch(o searchOptions) (host, term string, err error) {
	if scheme, rest, ok := strings.Cut(o.Term, "://"); ok {
		return "", "", fmt.Errorf("invalid search term %q: leave out %q, write %q", o.Term, scheme+"://", rest)
	}
	if o.Limit < 0 || o.Limit > maxSearchLimit {
		return "", "", fmt.Errorf("limit %d is outside the range of [1, %d]", o.Limit, maxSearchLimit)
	}
	host, term = dockerHub, o.Term
	if first, rest, ok := strings.Cut(o.Term, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		host, term = registryHost(first), rest
	}
	if host == dockerHub && term == "" {
		return "", "", errors.New("the search term is empty")
	}
	return host, term, nil
}

func newSearchRow(r registry.SearchResult, noTrunc bool) searchRow {
	row := searchRow{Name: r.Name, Description: r.Description, StarCount: strconv.Itoa(r.Stars)}
	if !noTrunc {
		row.Description = runewidth.Truncate(row.Description, 45, "…")
	}
	if r.Official {
		row.IsOfficial = "[OK]"
	}
	return row
}

// searchFilter is what search is asked to show.
type searchFilter struct {
	stars               int
	official, automated *bool // nil: both
}

func newSearchFilter(conditions []string) (searchFilter, error) {
	var f searchFilter
	for _, condition := range conditions {
		key, value, ok := strings.Cut(condition, "=")
		if !ok {
			return f, fmt.Errorf("invalid filter %q: want KEY=VALUE", condition)
		}
		switch key {
		case "stars":
			n, err := strconv.Atoi(value)
			if err != nil {
				return f, fmt.Errorf("invalid filter %q: want stars=N", condition)
			}
			f.stars = max(f.stars, n)
		case "is-official", "is-automated":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return f, fmt.Errorf("invalid filter %q: want %[2]s=true or %[2]s=false", condition, key)
			}
			if key == "is-official" {
				f.official = &b
			} else {
				f.automated = &b
			}
		default:
			return f, fmt.Errorf("unknown filter %q: there are stars, is-official and is-automated", key)
		}
	}
	return f, nil
}

func (f searchFilter) match(r registry.SearchResult) bool {
	return r.Stars >= f.stars && (f.official == nil || *f.official == r.Official) && (f.automated == nil || !*f.automated)
}
