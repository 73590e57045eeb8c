package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// runInspect describes what it finds, as docker does: one wrong name keeps none of
// the others. If there is nothing at all, it prints nothing.
func runInspect(e *env, o inspectOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	list, err := store.List()
	if err != nil {
		return err
	}
	finder := imageFinder{store: store, list: list, platform: o.Platform, note: e.note}
	var all []*inspection
	var failed error
	for _, ref := range o.Refs {
		one, err := finder.inspect(ref)
		if err == nil {
			all = append(all, one)
			continue
		}
		if failed != nil {
			e.say("%s: %s", program, printable(failed.Error()))
		}
		failed = concerning("inspect", ref, err)
	}
	if len(all) > 0 {
		if err := writeInspections(&e.Out, o.Format, all); err != nil {
			return err
		}
	}
	if failed != nil {
		return errors.Join(failed, e.flush())
	}
	return nil
}

func writeInspections(w io.Writer, format string, all []*inspection) error {
	if format == "" || format == "json" {
		indent := "    "
		if format == "json" {
			indent = ""
		}
		text, err := marshalJSON(all, indent)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	for _, one := range all {
		if err := writeInspection(w, format, one); err != nil {
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

// imageFinder finds what a user typed, and of an index the platform asked for, or
// if none is, this machine's, or the first that is there.
type imageFinder struct {
	store    *layout.Store
	list     []*layout.Image // all there is
	platform string
	note     func(msg string)
}

func (f imageFinder) find(ref string) (*found, error) {
	list, err := f.store.FindAmong(context.Background(), f.list, ref)
	if err != nil {
		return nil, err
	}
	img := &found{id: list[0].Descriptor().Digest, entry: list[0]}
	if f.platform == "" {
		img.image, err = img.entry.Best()
		if err == nil && img.entry.IsIndex() {
			f.noteForeign(ref, img.image.Descriptor())
		}
		return img, err
	}
	p, err := platform.Parse(f.platform)
	if err != nil {
		return nil, err
	}
	img.image, err = img.entry.Select(p)
	return img, err
}

// noteForeign tells that what is shown is not for this machine, though nobody has
// asked for another.
func (f imageFinder) noteForeign(ref string, d v1.Descriptor) {
	own := platform.Default()
	if _, err := platform.Select([]v1.Descriptor{d}, own); err != nil && d.Platform != nil {
		f.note(fmt.Sprintf("the store has no %s of %s: %s is shown", platform.Format(own), ref, printable(platform.Format(*d.Platform))))
	}
}

func (f imageFinder) inspect(ref string) (*inspection, error) {
	img, err := f.find(ref)
	if err != nil {
		return nil, err
	}
	config, err := img.image.Config()
	if err != nil {
		return nil, err
	}
	raw, err := img.image.RawConfig()
	if err != nil {
		return nil, err
	}
	out := &inspection{
		Author: config.Author, Architecture: config.Architecture, Variant: config.Variant,
		Os: config.OS, OsVersion: config.OSVersion,
		RootFS:   rootFS{Type: config.RootFS.Type},
		Metadata: imageMetadata{LastTagTime: img.entry.Tagged()},
	}
	shown := img.entry
	if f.platform != "" {
		shown = img.image
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
	out.addNames(f.list, img.id)
	return out, nil
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

// addNames lists what in the store points at the same digest.
func (i *inspection) addNames(list []*layout.Image, id v1.Hash) {
	i.RepoTags, i.RepoDigests = []string{}, []string{}
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
}
