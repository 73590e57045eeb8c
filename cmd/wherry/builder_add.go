//go:build linux

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build/farm"
)

type builderAddOptions struct {
	Name  string
	Nodes []string
	Use   bool
}

func builderAddCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "add",
		Usage:     "Add a builder, or nodes to one",
		ArgsUsage: "BUILDER",
		Flags: []cli.Flag{
			list("node", "A BuildKit daemon: tcp://HOST:PORT, unix:///PATH, ssh://[USER@]HOST,\n"+
				"kube-pod://POD[?namespace=N], docker-container://NAME, podman-container://NAME\n"+
				"or local, with platform=P,name=N,cacert=FILE,cert=FILE,key=FILE,servername=N,wait=20s behind it"),
			&cli.BoolFlag{Name: "use", Usage: "Build with it where no other builder is named"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runBuilderAdd(e, builderAddOptions{Name: args[0], Nodes: c.StringSlice("node"), Use: c.Bool("use")})
		},
	}
}

func runBuilderAdd(e *env, o builderAddOptions) error {
	command := program + " builder add"
	if len(o.Nodes) == 0 {
		return &usageError{command: command, err: errors.New("no --node: what is to build?")}
	}
	if err := farm.CheckName(o.Name); err != nil {
		return &usageError{command: command, err: err}
	}
	b, err := e.builders().Get(o.Name)
	if _, missing := errors.AsType[*farm.NoBuilderError](err); missing {
		b, err = &farm.Builder{Name: o.Name}, nil
	}
	if err != nil {
		return err
	}
	for _, text := range o.Nodes {
		n, err := farm.ParseNode(text)
		if err == nil {
			err = b.Add(n)
		}
		if err != nil {
			return &usageError{command: command, err: err}
		}
	}
	return e.putBuilder(b, o.Use)
}

// putBuilder keeps a builder, and prints its name.
func (e *env) putBuilder(b *farm.Builder, use bool) error {
	if err := e.builders().Put(b); err != nil {
		return err
	}
	for _, n := range b.Nodes {
		if strings.HasPrefix(n.Endpoint, "tcp://") && n.TLS == (farm.TLS{}) {
			e.say("note: node %q has no TLS: whoever reaches its port can build there, and read along", n.Name)
		}
	}
	if use {
		if err := e.builders().Use(b.Name); err != nil {
			return err
		}
	}
	fmt.Fprintln(&e.Out, b.Name)
	return nil
}
