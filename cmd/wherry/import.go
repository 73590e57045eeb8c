package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type importOptions struct {
	Source   string   // a file, an http or https URL, or "-" for stdin
	Ref      string   // empty: no name
	Changes  []string // Dockerfile instructions
	Message  string   // empty: where it was imported from
	Platform string   // empty: this machine's
}

func newImportCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "Import the contents from a tarball to create a filesystem image",
		ArgsUsage: "file|URL|- [REPOSITORY[:TAG]]",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "change", Aliases: []string{"c"}, Usage: "Apply Dockerfile instruction to the created image"},
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "Set commit message for imported image"},
			&cli.StringFlag{Name: "platform", Usage: "Set platform of the image (as \"os[/arch[/variant]]\")"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 2)
			if err != nil {
				return err
			}
			o := importOptions{
				Source: args[0], Changes: c.StringSlice("change"),
				Message: c.String("message"), Platform: c.String("platform"),
			}
			if len(args) > 1 {
				o.Ref = args[1]
			}
			return runImport(c.Context, e, o)
		},
	}
}

func runImport(ctx context.Context, e *env, o importOptions) error {
	image, err := newImportedImage(e, o)
	if err != nil {
		return err
	}
	names, err := importName(o.Ref)
	if err != nil {
		return err
	}
	source, err := e.openImport(ctx, o.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	store, err := e.openStore()
	if err != nil {
		return err
	}
	show := newMeter(e, source.size)
	img, err := store.Import(ctx, show.reader(source), layout.ImportOptions{
		Names: names,
		Config: func(diffID v1.Hash) ([]byte, error) {
			image.RootFS = ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(diffID.String())}}
			return json.Marshal(image)
		},
	})
	show.close()
	if err != nil {
		if e, ok := errors.AsType[*layout.InvalidError](err); ok && e.What == "archive" {
			e.What = strconv.Quote(source.name)
		}
		return concerning("import", source.name, err)
	}
	fmt.Fprintln(&e.Out, img.Descriptor().Digest)
	return nil
}

// importName is what the image is to be called, if anything.
func importName(ref string) ([]string, error) {
	if ref == "" {
		return nil, nil
	}
	named, err := registry.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, fmt.Errorf("cannot import under the name %q: a digest is nothing to choose", ref)
	}
	return []string{named.String()}, nil
}

// newImportedImage is the config that docker writes, but for the layer.
func newImportedImage(e *env, o importOptions) (*dockerspec.DockerOCIImage, error) {
	p := platform.Default()
	if o.Platform != "" {
		var err error
		if p, err = platform.Parse(o.Platform); err != nil {
			return nil, err
		}
	}
	now, err := e.now()
	if err != nil {
		return nil, err
	}
	comment := o.Message
	if comment == "" {
		comment = "Imported from " + importedFrom(o.Source)
	}
	image := &dockerspec.DockerOCIImage{Image: ocispecs.Image{
		Created: &now,
		Platform: ocispecs.Platform{
			Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant,
		},
		History: []ocispecs.History{{Created: &now, Comment: comment}},
	}}
	return image, build.Change(&image.Config, p.OS, o.Changes)
}

// importSource is a tar to be read once.
type importSource struct {
	io.ReadCloser
	name string // for errors
	size int64  // bytes; at most 0 if nobody knows
}

func (e *env) openImport(ctx context.Context, source string) (*importSource, error) {
	switch {
	case source == "-" && e.StdinTTY:
		return nil, withHint(errors.New("stdin is a terminal, not a tarball"), "%s import FILE.tar", program)
	case source == "-":
		return &importSource{ReadCloser: io.NopCloser(e.stdin(ctx)), name: "stdin"}, nil
	case build.IsURL(source):
		return download(ctx, source)
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &importSource{ReadCloser: f, name: source, size: info.Size()}, nil
}

// importedFrom is what docker writes into the history: a file's name is nobody's
// business. Of a URL that is what is no secret.
func importedFrom(source string) string {
	if build.IsURL(source) {
		return withoutSecrets(source)
	}
	return "-"
}
