package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/registry"
)

type imagetoolsInspectOptions struct {
	Name   string
	Format string
	Raw    bool
}

func imagetoolsInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Show details of an image in the registry",
		ArgsUsage: "NAME",
		Description: `A template has .Name, .Manifest, .Image, .Provenance and .SBOM, and the function
json. Of an image for several platforms the last three are maps: as
{{json (index .Image "linux/amd64")}}.`,
		Flags: byName(append(
			imagetoolsFlags(),
			&cli.StringFlag{Name: "format", Usage: "Format the output using the given Go template (default \"{{.Manifest}}\")"},
			&cli.BoolFlag{Name: "raw", Usage: "Show original, unformatted JSON manifest"},
		)),
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			e.sayNoEffect(c, "builder", "debug")
			o := imagetoolsInspectOptions{Name: args[0], Format: c.String("format"), Raw: c.Bool("raw")}
			if o.Format != "" && o.Raw {
				return &usageError{command: commandPath(c), err: errors.New("format and raw cannot be used together")}
			}
			return runImagetoolsInspect(c.Context, e, o)
		},
	}
}

func runImagetoolsInspect(ctx context.Context, e *env, o imagetoolsInspectOptions) error {
	ref, err := registryOnly(o.Name)
	if err != nil {
		return err
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return err
	}
	img, err := client.Get(ctx, ref)
	if err == nil {
		err = inspectInRegistry(ctx, e, img, ref, o)
	}
	return concerning("buildx imagetools inspect", o.Name, asNoManifest(err, ref))
}

func inspectInRegistry(ctx context.Context, e *env, img *registry.Image, ref reference.Named, o imagetoolsInspectOptions) error {
	raw := img.RawManifest()
	if o.Raw {
		_, err := e.Out.Write(raw) // without a line break: it has a digest
		return err
	}
	shown := imagetoolsView{ref: ref, desc: ociDescriptor(img.Descriptor())}
	if err := json.Unmarshal(raw, &shown.index); err != nil {
		return err
	}
	if o.Format == "" || isWholeManifest(o.Format) {
		return shown.write(&e.Out)
	}
	t, err := template.New("").Funcs(template.FuncMap{"json": indentedJSON}).Parse(o.Format)
	if err != nil {
		return &badFormatError{err: err}
	}
	known, err := loadImagetools(ctx, img)
	if err != nil {
		return err
	}
	err = t.Execute(&e.Out, known.inputs(o.Name, shown.manifest()))
	if failed, ok := errors.AsType[template.ExecError](err); ok && known.failed == nil {
		return &badFormatError{err: failed, fields: []string{"Name", "Manifest", "Image", "Provenance", "SBOM"}}
	}
	return err
}

func indentedJSON(v any) string {
	text, _ := json.MarshalIndent(v, "", "  ") // as buildx does: what can't be written is ""
	return string(text)
}

func isWholeManifest(format string) bool {
	return regexp.MustCompile(`^\{\{\s*\.Manifest\s*\}\}$`).MatchString(strings.TrimSpace(format))
}

// imagetoolsView is an image or index as buildx v0.38 prints it, byte for byte
// (util/imagetools/printers.go there), but for the order of annotations: it has none.
type imagetoolsView struct {
	ref   reference.Named
	desc  ocispecs.Descriptor
	index ocispecs.Index
}

// manifest is .Manifest of templates.
func (v imagetoolsView) manifest() any {
	if isImageType(v.desc.MediaType) {
		return v.desc
	}
	return struct {
		SchemaVersion int                   `json:"schemaVersion"`
		MediaType     string                `json:"mediaType,omitempty"`
		Digest        digest.Digest         `json:"digest"`
		Size          int64                 `json:"size"`
		Manifests     []ocispecs.Descriptor `json:"manifests"`
		Annotations   map[string]string     `json:"annotations,omitempty"`
	}{v.index.SchemaVersion, v.index.MediaType, v.desc.Digest, v.desc.Size, v.index.Manifests, v.index.Annotations}
}

func (v imagetoolsView) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "Name:\t%s\n", v.ref)
	fmt.Fprintf(w, "MediaType:\t%s\n", v.desc.MediaType)
	fmt.Fprintf(w, "Digest:\t%s\n", v.desc.Digest)
	if !isIndexType(v.desc.MediaType) {
		return w.Flush()
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\t\nManifests:\t\n")
	if err := w.Flush(); err != nil {
		return err
	}
	for i, m := range v.index.Manifests {
		if i != 0 {
			fmt.Fprintf(w, "\t\n")
		}
		if err := v.writeManifest(out, w, m); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (v imagetoolsView) writeManifest(out io.Writer, w *tabwriter.Writer, m ocispecs.Descriptor) error {
	name := v.ref.String()
	if ref, err := reference.WithDigest(v.ref, m.Digest); err == nil {
		name = ref.String()
	}
	fmt.Fprintf(w, "  Name:\t%s\n", name)
	fmt.Fprintf(w, "  MediaType:\t%s\n", m.MediaType)
	p := m.Platform
	if p == nil {
		return nil
	}
	fmt.Fprintf(w, "  Platform:\t%s\n", plainPlatform(*p))
	if p.OSVersion != "" {
		fmt.Fprintf(w, "  OSVersion:\t%s\n", p.OSVersion)
	}
	if len(p.OSFeatures) > 0 {
		fmt.Fprintf(w, "  OSFeatures:\t%s\n", strings.Join(p.OSFeatures, ", "))
	}
	if len(m.URLs) > 0 {
		fmt.Fprintf(w, "  URLs:\t%s\n", strings.Join(m.URLs, ", "))
	}
	if len(m.Annotations) == 0 {
		return nil
	}
	fmt.Fprintf(w, "  Annotations:\t\n")
	if err := w.Flush(); err != nil {
		return err
	}
	below := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	for _, key := range slices.Sorted(maps.Keys(m.Annotations)) {
		fmt.Fprintf(below, "    %s:\t%s\n", key, m.Annotations[key])
	}
	return below.Flush()
}

// plainPlatform is p as it is written, without the version of its system.
func plainPlatform(p ocispecs.Platform) string {
	if p.OS == "" {
		return "unknown"
	}
	return path.Join(p.OS, p.Architecture, p.Variant)
}
