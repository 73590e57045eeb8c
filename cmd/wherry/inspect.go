package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

type inspectOptions struct {
	Refs     []string
	Format   string
	Platform string
}

func newInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Display detailed information on one or more images",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "Format output using a custom template:\n" +
				"'json':             Print in JSON format\n" +
				"'TEMPLATE':         Print output using the given Go template"},
			&cli.StringFlag{Name: "platform", Usage: "Inspect a specific platform of the multi-platform image\n" +
				"(as \"os[/arch[/variant]]\")"},
			&cli.StringFlag{Name: "type", Usage: "What to inspect: there are images only (\"image\")"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, -1)
			if err != nil {
				return err
			}
			if kind := c.String("type"); kind != "" && kind != "image" {
				return &usageError{command: commandPath(c), err: fmt.Errorf("no type %q: there are images only", kind)}
			}
			return runInspect(e, inspectOptions{Refs: args, Format: c.String("format"), Platform: c.String("platform")})
		},
	}
}

// inspection is docker's description of an image. The names of its fields work in
// templates beside those of its JSON.
type inspection struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Comment      string `json:",omitempty"`
	Created      string `json:",omitempty"`
	Author       string `json:",omitempty"`
	Config       *dockerspec.DockerOCIImageConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	OsVersion    string `json:",omitempty"`
	Size         int64
	RootFS       rootFS
	Metadata     imageMetadata
	Descriptor   ocispecs.Descriptor
}

type rootFS struct {
	Type   string
	Layers []string `json:",omitempty"`
}

type imageMetadata struct {
	LastTagTime time.Time `json:",omitzero"`
}

func runInspect(e *env, o inspectOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	all := make([]*inspection, len(o.Refs))
	for i, ref := range o.Refs {
		if all[i], err = inspect(store, ref, o.Platform); err != nil {
			return concerning("inspect", ref, err)
		}
	}
	switch o.Format {
	case "":
		b, err := marshalJSON(all, "    ")
		if err != nil {
			return err
		}
		e.Out.Write(b)
		return nil
	case "json":
		b, err := marshalJSON(all, "")
		if err != nil {
			return err
		}
		e.Out.Write(b)
		return nil
	}
	for _, one := range all {
		if err := writeInspection(&e.Out, o.Format, one); err != nil {
			return err
		}
	}
	return nil
}

// writeInspection fills the template with the fields as docker's Go code calls
// them, and if it asks for another, as docker's JSON does: .ID and .Id both work.
func writeInspection(w io.Writer, format string, one *inspection) error {
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if first := t.Execute(&b, one); first != nil {
		text, err := json.Marshal(one)
		if err != nil {
			return err
		}
		var raw any
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		b.Reset()
		if err := t.Option("missingkey=error").Execute(&b, raw); err != nil {
			return &badFormatError{err: err}
		}
	}
	b.WriteByte('\n')
	_, err = b.WriteTo(w)
	return err
}

func marshalJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// found is an image of the store, brought down to one platform.
type found struct {
	id    v1.Hash       // what docker calls the image ID
	entry *layout.Image // what the name points at
	image *layout.Image // the manifest of the platform
}

// findForPlatform finds what a user typed, and of an index the platform asked
// for, or this machine's, or the first that is there.
func findForPlatform(store *layout.Store, ref, want string) (*found, error) {
	list, err := store.Find(ref)
	if err != nil {
		return nil, err
	}
	f := &found{id: list[0].Descriptor().Digest, entry: list[0]}
	if want == "" {
		f.image, err = f.entry.Best()
		return f, err
	}
	p, err := platform.Parse(want)
	if err != nil {
		return nil, err
	}
	f.image, err = f.entry.Select(p)
	return f, err
}

func inspect(store *layout.Store, ref, want string) (*inspection, error) {
	f, err := findForPlatform(store, ref, want)
	if err != nil {
		return nil, err
	}
	config, err := f.image.Config()
	if err != nil {
		return nil, err
	}
	raw, err := f.image.RawConfig()
	if err != nil {
		return nil, err
	}
	out := &inspection{
		Author: config.Author, Architecture: config.Architecture, Variant: config.Variant,
		Os: config.OS, OsVersion: config.OSVersion,
		RootFS:   rootFS{Type: config.RootFS.Type},
		Metadata: imageMetadata{LastTagTime: f.entry.Tagged()},
	}
	shown := f.entry
	if want != "" {
		shown = f.image
	}
	d := shown.Descriptor()
	out.ID, out.Size = d.Digest.String(), shown.Size()
	out.Descriptor = ocispecs.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
	for _, layer := range config.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, layer.String())
	}
	if !config.Created.IsZero() {
		out.Created = config.Created.Format(time.RFC3339Nano)
	}
	if n := len(config.History); n > 0 {
		out.Comment = config.History[n-1].Comment
	}
	if out.Config, err = dockerConfig(raw); err != nil {
		return nil, err
	}
	return out, out.addNames(store, f.id)
}

// dockerConfig reads the part of an image's config that says how to run it, with
// docker's extensions (Healthcheck, OnBuild, Shell).
func dockerConfig(raw []byte) (*dockerspec.DockerOCIImageConfig, error) {
	var image dockerspec.DockerOCIImage
	if err := json.Unmarshal(raw, &image); err != nil {
		return nil, fmt.Errorf("reading the image's config: %w", err)
	}
	return &image.Config, nil
}

// addNames lists what else points at the same digest.
func (i *inspection) addNames(store *layout.Store, id v1.Hash) error {
	i.RepoTags, i.RepoDigests = []string{}, []string{}
	list, err := store.List()
	if err != nil {
		return err
	}
	for _, img := range list {
		if img.Name() == "" || img.Descriptor().Digest != id {
			continue
		}
		repo, tag, _ := splitName(img.Name())
		if tag != "" {
			i.RepoTags = append(i.RepoTags, repo+":"+tag)
		}
		if d := repo + "@" + id.String(); !slices.Contains(i.RepoDigests, d) {
			i.RepoDigests = append(i.RepoDigests, d)
		}
	}
	return nil
}
