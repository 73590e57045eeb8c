//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tonistiigi/go-csvvalue"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/platform"
)

type buildxCreateOptions struct {
	Name, Node, Driver string
	Endpoint           string
	Platforms          []string
	DriverOpts         []string
	Append, Leave      bool
	Use, Bootstrap     bool
	Timeout            time.Duration
	Daemon             []string // flags that are about starting a daemon
}

func buildxCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "Create a new builder instance",
		ArgsUsage: "[ENDPOINT]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "append", Usage: "Append a node to builder instead of changing it"},
			&cli.BoolFlag{Name: "bootstrap", Usage: "Boot builder after creation: wait for its nodes"},
			hidden(&cli.StringFlag{Name: "buildkitd-config", Aliases: []string{"config"}, Usage: "BuildKit daemon config file (not supported)"}),
			hidden(&cli.StringFlag{Name: "buildkitd-flags", Usage: "BuildKit daemon flags (not supported)"}),
			&cli.StringFlag{Name: "driver", Usage: "Driver to use (available: \"remote\")"},
			list("driver-opt", "Options for the driver (cacert, cert, key, servername, wait)"),
			&cli.BoolFlag{Name: "leave", Usage: "Remove a node from builder instead of changing it"},
			&cli.StringFlag{Name: "name", Usage: "Builder instance name"},
			&cli.StringFlag{Name: "node", Usage: "Create/modify node with given name"},
			list("platform", "Fixed platforms for current node"),
			statusTimeoutFlag(),
			&cli.BoolFlag{Name: "use", Usage: "Set the current builder instance"},
		},
		Action: func(c *cli.Context) error {
			if _, err := operands(c, 0, 1); err != nil {
				return err
			}
			o := buildxCreateOptions{
				Name: c.String("name"), Node: c.String("node"), Driver: c.String("driver"), Endpoint: c.Args().First(),
				Platforms: c.StringSlice("platform"), DriverOpts: c.StringSlice("driver-opt"), Append: c.Bool("append"),
				Leave: c.Bool("leave"), Use: c.Bool("use"), Bootstrap: c.Bool("bootstrap"), Timeout: c.Duration("timeout"),
			}
			for _, name := range []string{"buildkitd-config", "buildkitd-flags"} {
				if c.IsSet(name) {
					o.Daemon = append(o.Daemon, name)
				}
			}
			return runBuildxCreate(c.Context, e, o)
		},
	}
}

func runBuildxCreate(ctx context.Context, e *env, o buildxCreateOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := e.builderToCreate(o)
	if err != nil {
		return err
	}
	if o.Leave {
		if err := b.Leave(o.Node); err != nil {
			return err
		}
		return e.builders().Put(b)
	}
	n, err := o.node(b)
	if err != nil {
		return err
	}
	if err := b.Add(n); err != nil {
		return err
	}
	if err := e.putBuilder(b, o.Use); err != nil {
		return err
	}
	if !o.Bootstrap {
		return nil
	}
	for _, n := range build.Status(ctx, b.Nodes, build.StatusOptions{Timeout: o.Timeout, Wait: true}) {
		if n.Err != nil {
			return n.Err
		}
	}
	return ctx.Err()
}

// check refuses what would start a daemon: wherry uses those that are there.
func (o buildxCreateOptions) check() error {
	hint := program + " buildx create --driver remote tcp://HOST:PORT, where a buildkitd listens; builds without one need no builder"
	switch {
	case o.Driver != "" && o.Driver != "remote":
		return withHint(fmt.Errorf("driver %q starts a BuildKit daemon, and wherry starts none", o.Driver), "%s", hint)
	case len(o.Daemon) > 0:
		return withHint(fmt.Errorf("--%s is for a daemon that is started, and wherry starts none", o.Daemon[0]), "%s", hint)
	case o.Leave && (o.Name == "" || o.Node == ""):
		return &usageError{command: program + " buildx create", err: errors.New("--leave wants --name and --node")}
	case o.Append && o.Name == "":
		return &usageError{command: program + " buildx create", err: errors.New("--append wants --name")}
	case o.Endpoint != "" && !farm.IsEndpoint(o.Endpoint):
		return withHint(fmt.Errorf("%q is no address of a BuildKit daemon", o.Endpoint), "%s", hint)
	case o.Endpoint == "" && !o.Leave && o.Node == "":
		return withHint(errors.New("no endpoint: where is the BuildKit daemon?"), "%s", hint)
	}
	return nil
}

// builderToCreate is a new builder, or the one that a node joins, leaves or is changed in.
func (e *env) builderToCreate(o buildxCreateOptions) (*farm.Builder, error) {
	if o.Name == "" {
		taken, err := e.builders().Names()
		for i := 0; ; i++ {
			if name := fmt.Sprintf("builder%d", i); err != nil || !slices.Contains(taken, name) {
				return &farm.Builder{Name: name}, err
			}
		}
	}
	b, err := e.builders().Get(o.Name)
	_, missing := errors.AsType[*farm.NoBuilderError](err)
	switch {
	case missing && !o.Append && !o.Leave:
		return &farm.Builder{Name: o.Name}, farm.CheckName(o.Name)
	case err != nil:
		return nil, err
	case !o.Append && !o.Leave && (o.Node == "" || b.Node(o.Node) == nil):
		return nil, withHint(fmt.Errorf("there is a builder %q", o.Name), "%s buildx create --append --name %s ..., or %[1]s buildx rm %[2]s", program, o.Name)
	}
	return b, nil
}

// node is the one that was typed; where it is there already, what was not typed stays.
func (o buildxCreateOptions) node(b *farm.Builder) (farm.Node, error) {
	n := farm.Node{Name: o.Node}
	if old := b.Node(o.Node); old != nil && o.Node != "" {
		n = *old
	}
	if o.Endpoint != "" {
		n.Endpoint = o.Endpoint
	}
	if len(o.Platforms) > 0 {
		var err error
		if n.Platforms, err = platform.ParseAll(o.Platforms); err != nil {
			return n, err
		}
	}
	for _, opt := range o.DriverOpts {
		fields, err := csvvalue.Fields(opt, nil)
		if err != nil {
			return n, fmt.Errorf("invalid --driver-opt %q: %w", opt, err)
		}
		for _, f := range fields {
			key, value, _ := strings.Cut(f, "=")
			if key == "default-load" {
				return n, errors.New("--driver-opt default-load is not supported: a result goes to the store unless it is pushed")
			}
			if err := n.Set(key, value); err != nil {
				return n, fmt.Errorf("invalid --driver-opt %q: %w", opt, err)
			}
		}
	}
	return n, nil
}
