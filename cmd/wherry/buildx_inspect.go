//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
)

type buildxInspectOptions struct {
	Builder   string
	Bootstrap bool
	Timeout   time.Duration
}

func buildxInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Inspect current builder instance",
		ArgsUsage: "[BUILDER]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "bootstrap", Usage: "Ensure builder has booted before inspecting: wait for its nodes"},
			&cli.StringFlag{Name: "builder", Usage: "Override the configured builder instance"},
			statusTimeoutFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 0, 1)
			if err != nil {
				return err
			}
			name := c.String("builder")
			if len(args) > 0 {
				name = args[0]
			}
			return runBuildxInspect(c.Context, e, buildxInspectOptions{Builder: name, Bootstrap: c.Bool("bootstrap"), Timeout: c.Duration("timeout")})
		},
	}
}

func runBuildxInspect(ctx context.Context, e *env, o buildxInspectOptions) error {
	b, err := e.chooseBuilder(o.Builder)
	if err != nil {
		return err
	}
	if b == nil {
		b = &farm.Builder{Name: farm.Default, Nodes: []farm.Node{{Name: farm.Default, Endpoint: farm.Local}}}
	}
	nodes := build.Status(ctx, b.Nodes, build.StatusOptions{Timeout: o.Timeout, Wait: o.Bootstrap, Cache: true})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w := tabwriter.NewWriter(&e.Out, 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "Name:\t%s\nDriver:\t%s\n\nNodes:\n", b.Name, driverOf(b))
	for i, n := range nodes {
		if i > 0 {
			fmt.Fprintln(w)
		}
		writeNode(w, n)
		if n.Err != nil && o.Bootstrap {
			return n.Err
		}
	}
	return w.Flush()
}

// writeNode prints a node as buildx does, and what its cache takes.
func writeNode(w io.Writer, n build.NodeStatus) {
	fmt.Fprintf(w, "Name:\t%s\nEndpoint:\t%s\n", n.Node.Name, n.Node.Endpoint)
	var options []string
	for _, o := range [][2]string{{"cacert", n.Node.TLS.CACert}, {"cert", n.Node.TLS.Cert}, {"key", n.Node.TLS.Key}, {"servername", n.Node.TLS.ServerName}} {
		if o[1] != "" {
			options = append(options, fmt.Sprintf("%s=%q", o[0], o[1]))
		}
	}
	if len(options) > 0 {
		fmt.Fprintf(w, "Driver Options:\t%s\n", strings.Join(options, " "))
	}
	fmt.Fprintf(w, "Status:\t%s\n", statusText(n))
	if n.Err != nil {
		reason := n.Err
		if e, ok := errors.AsType[*farm.NodeError](reason); ok {
			reason = e.Err // it stands under the node's name
		}
		fmt.Fprintf(w, "Error:\t%s\n", printable(reason.Error()))
		return
	}
	fmt.Fprintf(w, "BuildKit version:\t%s\nPlatforms:\t%s\n", printable(n.Version), strings.Join(nodePlatforms(n), ", "))
	if n.Node.Endpoint != farm.Local {
		fmt.Fprintf(w, "Cache:\t%d records, %s (%s reclaimable)\n", n.Records, units.HumanSize(float64(n.Cache)), units.HumanSize(float64(n.Reclaim)))
	}
	if len(n.Labels) > 0 {
		fmt.Fprintln(w, "Labels:")
	}
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		fmt.Fprintf(w, "\t%s:\t%s\n", printable(key), printable(n.Labels[key]))
	}
	for i, p := range n.Policies {
		fmt.Fprintf(w, "GC Policy rule#%d:\n\tAll:\t%v\n", i, p.All)
		if len(p.Filters) > 0 {
			fmt.Fprintf(w, "\tFilters:\t%s\n", printable(strings.Join(p.Filters, " ")))
		}
		if p.Keep > 0 {
			fmt.Fprintf(w, "\tKeep Duration:\t%v\n", p.Keep)
		}
		for _, size := range []struct {
			name  string
			bytes int64
		}{{"Reserved Space", p.Reserved}, {"Max Used Space", p.MaxUsed}, {"Min Free Space", p.MinSpace}} {
			if size.bytes > 0 {
				fmt.Fprintf(w, "\t%s:\t%s\n", size.name, units.BytesSize(float64(size.bytes)))
			}
		}
	}
}
