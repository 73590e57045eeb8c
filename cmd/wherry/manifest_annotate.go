package main

import (
	"context"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type manifestAnnotateOptions struct {
	List, Image string
	Set         v1.Platform
}

func manifestAnnotateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "annotate",
		Usage:     "Add additional information to a local image manifest",
		ArgsUsage: "MANIFEST_LIST MANIFEST",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "arch", Usage: "Set architecture"},
			&cli.StringFlag{Name: "os", Usage: "Set operating system"},
			&cli.StringSliceFlag{Name: "os-features", Usage: "Set operating system feature (several, or separated by commas)"},
			&cli.StringFlag{Name: "os-version", Usage: "Set operating system version"},
			&cli.StringFlag{Name: "variant", Usage: "Set architecture variant"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 2, 2)
			if err != nil {
				return err
			}
			return runManifestAnnotate(c.Context, e, manifestAnnotateOptions{
				List: args[0], Image: args[1],
				Set: v1.Platform{
					OS: c.String("os"), Architecture: c.String("arch"), Variant: c.String("variant"),
					OSVersion: c.String("os-version"), OSFeatures: splitAll(c.StringSlice("os-features")),
				},
			})
		},
	}
}

// splitAll takes the elements of a list apart at their commas.
func splitAll(list []string) []string {
	var all []string
	for _, element := range list {
		for s := range strings.SplitSeq(element, ",") {
			if s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

func runManifestAnnotate(ctx context.Context, e *env, o manifestAnnotateOptions) error {
	list, err := listName(o.List)
	if err != nil {
		return err
	}
	if _, err := registry.ParseReference(o.Image); err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	_, err = store.EditDraft(ctx, list.String(), func(d *layout.Draft) error {
		m, err := memberOf(d, o.Image, "manifest")
		if err != nil {
			return err
		}
		m.Annotate(o.Set)
		return checkPlatform(*m.Descriptor.Platform, "manifest", o.List, o.Image)
	})
	return err
}

// checkPlatform refuses a platform that no machine is; command is "manifest" or
// "index", and what was annotated is told for the hint.
func checkPlatform(p v1.Platform, command, list, image string) error {
	if platform.IsKnown(p.OS, p.Architecture) {
		return nil
	}
	err := fmt.Errorf("manifest entry for image has unsupported os/arch combination: %s/%s", p.OS, p.Architecture)
	if n := platform.Normalize(p); platform.IsKnown(n.OS, n.Architecture) {
		flags := "--os " + n.OS + " --arch " + n.Architecture
		if n.Variant != "" {
			flags += " --variant " + n.Variant
		}
		return withHint(err, "%s %s annotate %s %s %s", program, command, flags, list, image)
	}
	return err
}
