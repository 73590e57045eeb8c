package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type indexInspectOptions struct {
	Index    string
	Format   string
	Insecure bool
	Raw      bool
}

func indexInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Show an index, and what is in it",
		ArgsUsage: "INDEX",
		Description: `Shown is the draft of that name, or else what the store has under it, or else
what its registry has; FROM says which of them it is.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "Format output using a custom template:\n" +
				"'json':             Print in JSON format\n" +
				"'TEMPLATE':         Print output using the given Go template"},
			insecureFlag("Allow communication with an insecure registry"),
			&cli.BoolFlag{Name: "raw", Usage: "Print the index as it is, byte for byte"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			o := indexInspectOptions{Index: args[0], Format: c.String("format"), Insecure: c.Bool("insecure"), Raw: c.Bool("raw")}
			if o.Raw && o.Format != "" {
				return &usageError{command: commandPath(c), err: errors.New("--raw can't be used with --format")}
			}
			return runIndexInspect(c.Context, e, o)
		},
	}
}

// indexView is an index as it is shown; the names of its fields are those of templates.
type indexView struct {
	Name         string
	From         string // "draft", "store" or "registry"
	MediaType    string
	Digest       string
	Size         int64
	ArtifactType string               `json:",omitempty"`
	Subject      *ocispecs.Descriptor `json:",omitempty"`
	Annotations  map[string]string    `json:",omitempty"`
	Manifests    []indexEntry

	raw []byte
}

// indexEntry is a manifest in an index.
type indexEntry struct {
	Platform     string // as os/arch[/variant]; "" for what has none
	MediaType    string
	Digest       string
	Size         int64
	ArtifactType string            `json:",omitempty"`
	Attests      string            `json:",omitempty"` // the digest of the image that this is about
	Source       string            `json:",omitempty"` // in a draft: what it was added by
	Annotations  map[string]string `json:",omitempty"`
}

func runIndexInspect(ctx context.Context, e *env, o indexInspectOptions) error {
	view, err := viewIndex(ctx, e, o)
	if err != nil {
		return concerning("index inspect", o.Index, err)
	}
	switch o.Format {
	case "":
	case "json":
		text, err := marshalJSON(view, "")
		if err != nil {
			return err
		}
		_, err = e.Out.Write(text)
		return err
	default:
		return writeTemplate(&e.Out, o.Format, "", view)
	}
	if o.Raw {
		_, err := e.Out.Write(view.raw)
		return err
	}
	return view.write(&e.Out)
}

// viewIndex finds the index: a draft, or else in the store, or else in its registry.
func viewIndex(ctx context.Context, e *env, o indexInspectOptions) (*indexView, error) {
	ref, err := registry.ParseReference(o.Index)
	if err != nil {
		return nil, err
	}
	store, err := e.openStore()
	if err != nil {
		return nil, err
	}
	d, err := store.Draft(ctx, ref.String())
	if err == nil {
		return viewDraft(ctx, d)
	}
	if !errors.As(err, new(*layout.NotFoundError)) {
		return nil, err
	}
	if found, err := store.Find(o.Index); err == nil {
		raw, err := found[0].RawManifest() //nolint:contextcheck // reads a local file
		if err != nil {
			return nil, err
		}
		return newIndexView(firstOf(familiarString(found[0].Name()), o.Index), "store", found[0].Descriptor(), raw)
	}
	client, err := e.registryClientFor(o.Insecure, nil)
	if err != nil {
		return nil, err
	}
	img, err := client.Get(ctx, ref)
	if err != nil {
		return nil, asNoManifest(err, ref)
	}
	return newIndexView(familiarString(ref.String()), "registry", img.Descriptor(), img.RawManifest())
}

func viewDraft(ctx context.Context, d *layout.Draft) (*indexView, error) {
	raw, err := d.RawManifest(ctx)
	if err != nil {
		return nil, err
	}
	view, err := newIndexView(familiarString(d.Name()), "draft", d.Descriptor(), raw)
	if err != nil {
		return nil, err
	}
	for i, m := range d.Members {
		view.Manifests[i].Source = familiarRef(m.From)
	}
	return view, nil
}

// newIndexView reads an index. A manifest is shown without anything in it.
func newIndexView(name, from string, d v1.Descriptor, raw []byte) (*indexView, error) {
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	view := &indexView{
		Name: name, From: from, MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size,
		ArtifactType: index.ArtifactType, Subject: index.Subject, Annotations: index.Annotations,
		Manifests: make([]indexEntry, len(index.Manifests)), raw: raw,
	}
	for i, m := range index.Manifests {
		view.Manifests[i] = indexEntry{
			Platform: platformOf(m), MediaType: m.MediaType, Digest: m.Digest.String(), Size: m.Size, ArtifactType: m.ArtifactType,
			Attests: m.Annotations[platform.AttestationSubject], Annotations: m.Annotations,
		}
	}
	return view, nil
}

func platformOf(d ocispecs.Descriptor) string {
	p := d.Platform
	if p == nil || p.OS == "" && p.Architecture == "" || p.OS == "unknown" && p.Architecture == "unknown" {
		return ""
	}
	return platform.Format(v1.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	})
}

// write shows the view to a person: what the index says of itself, and a table.
func (v *indexView) write(w io.Writer) error {
	head := tabwriter.NewWriter(w, 0, 1, 2, ' ', 0)
	for _, row := range [][2]string{
		{"Name:", v.Name},
		{"From:", v.From},
		{"MediaType:", v.MediaType},
		{"Digest:", v.Digest},
		{"ArtifactType:", v.ArtifactType},
		{"Subject:", v.subject()},
	} {
		if row[1] != "" {
			fmt.Fprintf(head, "%s\t%s\n", row[0], printable(row[1]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.Annotations)) {
		fmt.Fprintf(head, "Annotation:\t%s=%s\n", printable(key), printable(v.Annotations[key]))
	}
	if err := head.Flush(); err != nil || len(v.Manifests) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return v.writeTable(w)
}

// writeTable lists the manifests, in columns of which those without content are left out.
func (v *indexView) writeTable(w io.Writer) error {
	columns := []string{"PLATFORM", "DIGEST"}
	if slices.ContainsFunc(v.Manifests, func(m indexEntry) bool { return m.notes() != "" }) {
		columns = append(columns, "NOTES")
	}
	if v.From == "draft" {
		columns = append(columns, "SOURCE")
	}
	table := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	fmt.Fprintln(table, strings.Join(columns, "\t"))
	for _, m := range v.Manifests {
		cells := map[string]string{"PLATFORM": m.kind(), "DIGEST": m.Digest, "NOTES": m.notes(), "SOURCE": printable(m.Source)}
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = cells[c]
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	return table.Flush()
}

func (v *indexView) subject() string {
	if v.Subject == nil {
		return ""
	}
	return v.Subject.Digest.String()
}

// kind is the platform, or what it is that has none.
func (m indexEntry) kind() string {
	switch {
	case m.Attests != "":
		return "attestation"
	case m.Platform != "":
		return printable(m.Platform)
	case strings.Contains(m.MediaType, "index") || strings.Contains(m.MediaType, "manifest.list"):
		return "index"
	}
	return "unknown"
}

// notes are what it attests to, and the annotations.
func (m indexEntry) notes() string {
	if m.Attests != "" {
		return "of " + shortID(m.Attests)
	}
	var notes []string
	for _, key := range slices.Sorted(maps.Keys(m.Annotations)) {
		notes = append(notes, printable(key)+"="+printable(m.Annotations[key]))
	}
	return strings.Join(notes, " ")
}
