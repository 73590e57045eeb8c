package main

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

type tagOptions struct {
	Source, Target string
}

func newTagCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "tag",
		Usage:     "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		ArgsUsage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Action: func(c *cli.Context) error {
			args, err := operands(c, 2, 2)
			if err != nil {
				return err
			}
			return runTag(e, tagOptions{Source: args[0], Target: args[1]})
		},
	}
}

func runTag(e *env, o tagOptions) error {
	target, err := registry.ParseReference(o.Target)
	if err != nil {
		return err
	}
	if _, ok := target.(reference.Digested); ok {
		return fmt.Errorf("%q has a digest: a digest is not chosen, name a tag", o.Target)
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	found, err := store.Find(o.Source)
	if err != nil {
		return concerning("tag", o.Source, err)
	}
	return concerning("tag", o.Source, store.Tag(found[0], target.String()))
}
