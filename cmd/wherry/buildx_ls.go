//go:build linux

package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/platform"
)

type buildxLsOptions struct {
	Format  string
	NoTrunc bool
	Timeout time.Duration
}

func buildxLsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "List builder instances",
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "no-trunc", Usage: "Don't truncate output"},
			statusTimeoutFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 0); err != nil {
				return err
			}
			return runBuildxLs(c.Context, e, buildxLsOptions{Format: c.String("format"), NoTrunc: c.Bool("no-trunc"), Timeout: c.Duration("timeout")})
		},
	}
}

func statusTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Value: farm.DefaultWait, Usage: "Override the default timeout for loading builder status"}
}

// builderRow is a builder, or a node of one, with the fields of buildx's templates.
type builderRow struct {
	Name           string
	DriverEndpoint string
	LastActivity   string
	Status         string
	Buildkit       string
	Platforms      string
	Error          string
}

// builderJSON is a builder as --format json has it.
type builderJSON struct {
	Name    string
	Driver  string
	Current bool
	Nodes   []nodeJSON
}

type nodeJSON struct {
	Name, Endpoint, Status string
	Version                string   `json:",omitempty"`
	Platforms              []string `json:",omitempty"`
	Err                    string   `json:",omitempty"`
}

func runBuildxLs(ctx context.Context, e *env, o buildxLsOptions) error {
	current, err := e.builderName("")
	if err != nil {
		return err
	}
	all, err := e.allBuilders()
	if err != nil {
		return err
	}
	l := listing{
		Format: o.Format, Table: "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}",
		Header: map[string]string{
			"Name": "NAME/NODE", "DriverEndpoint": "DRIVER/ENDPOINT", "LastActivity": "LAST ACTIVITY", "Status": "STATUS",
			"Buildkit": "BUILDKIT", "Platforms": "PLATFORMS", "Error": "ERROR",
		},
	}
	_, table := l.text()
	var rows []builderRow
	var list []builderJSON
	for _, b := range all {
		nodes := build.Status(ctx, b.Nodes, build.StatusOptions{Timeout: o.Timeout})
		one := builderJSON{Name: b.Name, Driver: driverOf(b), Current: b.Name == current}
		rows = append(rows, one.row(table))
		for _, n := range nodes {
			one.Nodes = append(one.Nodes, newNodeJSON(n))
			rows = append(rows, newNodeRow(n, table, !o.NoTrunc))
			if n.Err != nil {
				e.say("Failed to get status for %s: %v", b.Name, n.Err)
			}
		}
		list = append(list, one)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if o.Format == "json" {
		return writeList(&e.Out, l, list)
	}
	return writeList(&e.Out, l, rows)
}

// allBuilders are those of the user, and the one that is this process, first.
func (e *env) allBuilders() ([]*farm.Builder, error) {
	all := []*farm.Builder{{Name: farm.Default, Nodes: []farm.Node{{Name: farm.Default, Endpoint: farm.Local}}}}
	names, err := e.builders().Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := e.builders().Get(name)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// driverOf is what makes the builder's nodes: nobody here, they are there.
func driverOf(b *farm.Builder) string {
	if b.Name == farm.Default {
		return program
	}
	return "remote"
}

func statusText(n build.NodeStatus) string {
	if n.Err != nil {
		return "inactive"
	}
	return "running"
}

func (b builderJSON) row(table bool) builderRow {
	row := builderRow{Name: b.Name, DriverEndpoint: b.Driver}
	if b.Current && table {
		row.Name += "*"
	}
	return row
}

func newNodeJSON(n build.NodeStatus) nodeJSON {
	one := nodeJSON{Name: n.Node.Name, Endpoint: n.Node.Endpoint, Status: statusText(n), Version: n.Version, Platforms: nodePlatforms(n)}
	if n.Err != nil {
		one.Err = n.Err.Error()
	}
	return one
}

func newNodeRow(n build.NodeStatus, table, short bool) builderRow {
	row := builderRow{Name: n.Node.Name, DriverEndpoint: n.Node.Endpoint, Status: statusText(n), Buildkit: n.Version}
	platforms := nodePlatforms(n)
	if n.Err != nil {
		row.Error = n.Err.Error()
	}
	if table {
		row.Name, row.DriverEndpoint = ` \_ `+row.Name, ` \_ `+row.DriverEndpoint
	}
	if table && short {
		platforms = majorPlatforms(platforms)
	}
	row.Platforms = strings.Join(platforms, ", ")
	return row
}

// nodePlatforms are those that the node is for, marked, and those that it runs.
func nodePlatforms(n build.NodeStatus) []string {
	var list []string
	for _, p := range n.Node.Platforms {
		list = append(list, platform.Format(p)+"*")
	}
	for _, p := range n.Platforms {
		if !hasPlatform(n.Node.Platforms, p) {
			list = append(list, platform.Format(p))
		}
	}
	return list
}

func hasPlatform(list []v1.Platform, p v1.Platform) bool {
	for _, one := range list {
		if platform.Format(one) == platform.Format(p) {
			return true
		}
	}
	return false
}

// maxPlatforms is how many groups of platforms a table shows.
const maxPlatforms = 4

// majorPlatforms puts the variants of an architecture together: "linux/amd64 (+3)".
func majorPlatforms(list []string) []string {
	var majors []string
	count, marked := map[string]int{}, map[string]bool{}
	for _, p := range list {
		plain := strings.TrimSuffix(p, "*")
		parts := strings.SplitN(plain, "/", 3)
		major := strings.Join(parts[:min(2, len(parts))], "/")
		if count[major]++; count[major] == 1 {
			majors = append(majors, major)
		}
		marked[major] = marked[major] || plain != p
	}
	var shown []string
	for i, major := range majors {
		if i == maxPlatforms {
			return append(shown, "("+strconv.Itoa(len(majors)-i)+" more)")
		}
		text := major
		if marked[major] {
			text += "*"
		}
		if n := count[major]; n > 1 {
			text += " (+" + strconv.Itoa(n-1) + ")"
		}
		shown = append(shown, text)
	}
	return shown
}
