//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
)

// buildxCommands are those of docker buildx that are about builders.
func buildxCommands(e *env) []*cli.Command {
	return append(cacheAndNodeCommands(e), buildxCreateCommand(e))
}

// cacheAndNodeCommands are those that both groups have.
func cacheAndNodeCommands(e *env) []*cli.Command {
	return []*cli.Command{
		newBuildCommand(e), buildxDuCommand(e), buildxInspectCommand(e), buildxLsCommand(e), buildxPruneCommand(e),
		buildxRmCommand(e), buildxUseCommand(e),
	}
}

// builderCommands are those of docker builder, and wherry's own word for adding one.
func builderCommands(e *env) []*cli.Command {
	return append(cacheAndNodeCommands(e), builderAddCommand(e))
}

// cacheOf is where the cache of a builder is: on nodes, in this process's state, or both.
type cacheOf struct {
	nodes []farm.Node
	store buildStore
	state build.State
	local bool
}

// enterCache is enterBuild for a command on the cache of a builder.
func (e *env) enterCache(ctx context.Context, builder string) (c cacheOf, err error) {
	b, err := e.chooseBuilder(builder)
	if err != nil {
		return c, err
	}
	if b != nil {
		c.nodes = b.Nodes
	}
	if c.local = b == nil || b.HasLocal(); c.local {
		c.store, c.state, err = e.enterBuild(ctx, "", nil) // how steps would be run does not matter here
	}
	return c, err
}

// cacheFlags are what the commands on the build cache have in common.
func cacheFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "builder", Usage: "Override the configured builder instance (\"default\" is this process)"},
		&cli.BoolFlag{Name: "debug", Aliases: []string{"D"}, Usage: "Enable debug logging (has no effect)"},
		list("filter", "Provide filter values (until=24h, type=exec.cachemount, id=ID, inuse, mutable,\n"+
			"description~=PATTERN, ...)"),
		&cli.DurationFlag{Name: "timeout", Value: 20 * time.Second, Usage: "Override the default timeout for loading builder status (has no effect)"},
	}
}

// sayIdle tells of flags that mean nothing here: the builder is this process.
func sayIdle(e *env, c *cli.Context) {
	for _, name := range []string{"debug", "timeout"} {
		if c.IsSet(name) {
			e.say("note: --%s has no effect", name)
		}
	}
}

// cacheFilter reads --filter as buildx does: all of them have to hold. The time is that
// of until, or of its older name unused-for.
func cacheFilter(command string, list []string) (filter string, unused time.Duration, err error) {
	var all []string
	for _, f := range list {
		key, value, valued := strings.Cut(f, "=")
		switch {
		case key == "until" || key == "unused-for":
			if unused, err = time.ParseDuration(value); err != nil || unused < 0 {
				return "", 0, &usageError{command: command, err: fmt.Errorf("invalid filter %q: want a duration, as until=24h", f)}
			}
		case !valued:
			all = append(all, key)
		case key == "id":
			all = append(all, "id~="+value)
		case strings.HasSuffix(key, "!"), strings.HasSuffix(key, "~"):
			all = append(all, key+"="+value)
		default:
			all = append(all, key+"=="+value)
		}
	}
	return strings.Join(all, ","), unused, nil
}

// cacheRow is a record of the build cache with the fields of buildx's templates.
type cacheRow struct {
	CreatedAt   string
	Description string
	ID          string
	LastUsedAt  string
	Mutable     bool
	Parents     []string
	Reclaimable bool
	Shared      bool
	Size        string
	Type        string
	UsageCount  int
}

func newCacheRow(r build.CacheRecord, table bool) cacheRow {
	row := cacheRow{
		CreatedAt: r.Created.String(), Description: r.Description, ID: r.ID, Mutable: r.Mutable, Parents: r.Parents,
		Reclaimable: !r.InUse, Shared: r.Shared, Size: units.HumanSize(float64(r.Size)), Type: r.Type, UsageCount: r.Uses,
	}
	if !r.LastUsed.IsZero() {
		row.LastUsedAt = units.HumanDuration(time.Since(r.LastUsed)) + " ago"
	}
	if table && r.Mutable {
		row.ID += "*"
	}
	if table && r.Shared {
		row.Size += "*"
	}
	return row
}

// verboseRecord is the template of --verbose.
const verboseRecord = `ID:           {{.ID}}
{{- if .Parents}}
Parents:
{{- range .Parents}}
 - {{.}}
{{- end}}
{{- end}}
Created at:   {{.CreatedAt}}
Mutable:      {{.Mutable}}
Reclaimable:  {{.Reclaimable}}
Shared:       {{.Shared}}
Size:         {{.Size}}
{{- if .Description}}
Description:  {{.Description}}
{{- end}}
Usage count:  {{.UsageCount}}
{{- if .LastUsedAt}}
Last used:    {{.LastUsedAt}}
{{- end}}
{{- if .Type}}
Type:         {{.Type}}
{{- end}}
`

// writeCache prints records of the build cache.
func (e *env) writeCache(format string, records []build.CacheRecord) error {
	l := cacheListing(format)
	_, table := l.text()
	rows := make([]cacheRow, len(records))
	for i, r := range records {
		rows[i] = newCacheRow(r, table)
	}
	return writeList(&e.Out, l, rows)
}

func cacheListing(format string) listing {
	return listing{
		Format: format,
		Table:  "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}",
		Header: map[string]string{
			"ID": "ID", "Parents": "PARENTS", "CreatedAt": "CREATED AT", "Mutable": "MUTABLE", "Reclaimable": "RECLAIMABLE",
			"Shared": "SHARED", "Size": "SIZE", "Description": "DESCRIPTION", "UsageCount": "USAGE COUNT",
			"LastUsedAt": "LAST ACCESSED", "Type": "TYPE",
		},
	}
}
