package main

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
)

type indexAnnotateOptions struct {
	Index string
	Entry string // empty: the index itself
	indexIdentity
	Set      v1.Platform
	Insecure bool
}

func indexAnnotateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "annotate",
		Usage:     "Say more of an index, or of an image in it",
		ArgsUsage: "INDEX [ENTRY]",
		Description: `An ENTRY is the name that an image was added by, its digest or the beginning of
one, or its platform. Without one the index itself is annotated. Docker's kind
of manifest list has no annotations: with any, it becomes an index of OCI's.`,
		Flags: byName(append(
			indexFlags(),
			&cli.StringFlag{Name: "arch", Usage: "Set architecture"},
			insecureFlag("Allow communication with an insecure registry (for --subject)"),
			&cli.StringFlag{Name: "os", Usage: "Set operating system"},
			&cli.StringSliceFlag{Name: "os-features", Usage: "Set operating system feature (several, or separated by commas)"},
			&cli.StringFlag{Name: "os-version", Usage: "Set operating system version"},
			&cli.StringFlag{Name: "variant", Usage: "Set architecture variant"},
		)),
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 2)
			if err != nil {
				return err
			}
			identity, err := indexIdentityOf(c)
			if err != nil {
				return err
			}
			o := indexAnnotateOptions{Index: args[0], indexIdentity: identity, Insecure: c.Bool("insecure"), Set: v1.Platform{
				OS: c.String("os"), Architecture: c.String("arch"), Variant: c.String("variant"),
				OSVersion: c.String("os-version"), OSFeatures: splitAll(c.StringSlice("os-features")),
			}}
			if len(args) == 2 {
				o.Entry = args[1]
			}
			if err := o.check(); err != nil {
				return &usageError{command: commandPath(c), err: err}
			}
			return runIndexAnnotate(c.Context, e, o)
		},
	}
}

// check refuses what an index, or an image in it, does not have.
func (o indexAnnotateOptions) check() error {
	setsPlatform := !o.Set.Equals(v1.Platform{})
	switch {
	case o.Entry == "" && setsPlatform:
		return errors.New("a platform is one of an image in the index: name the ENTRY")
	case o.Entry != "" && (o.ArtifactType != "" || o.Subject != ""):
		return fmt.Errorf("--artifact-type and --subject are about the index: leave out %q", o.Entry)
	case !setsPlatform && o.isEmpty():
		return errors.New("nothing to annotate with")
	}
	return nil
}

func runIndexAnnotate(ctx context.Context, e *env, o indexAnnotateOptions) error {
	w, err := newIndexWork(e, o.Index, o.Insecure)
	if err != nil {
		return err
	}
	if o.Entry == "" {
		identify, err := w.identify(ctx, o.indexIdentity)
		if err != nil {
			return err
		}
		return w.edit(ctx, func(d *layout.Draft) error {
			identify(d)
			return nil
		})
	}
	return w.edit(ctx, func(d *layout.Draft) error {
		m, err := memberOf(d, o.Entry, "index")
		if err != nil {
			return err
		}
		m.Note(o.Annotations)
		if o.Set.Equals(v1.Platform{}) {
			return nil
		}
		m.Annotate(o.Set)
		return checkPlatform(*m.Descriptor.Platform, "index", o.Index, o.Entry)
	})
}
