package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

type manifestInspectOptions struct {
	List     string // empty: Ref stands for itself
	Ref      string
	Insecure bool
	Verbose  bool
}

func manifestInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "Display an image manifest, or manifest list",
		ArgsUsage: "[MANIFEST_LIST] MANIFEST",
		Description: `With one operand: the local manifest list of that name, or else what its registry
has. The images of the store are shown by "inspect".`,
		Flags: []cli.Flag{
			insecureFlag("Allow communication with an insecure registry"),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "Output additional info including layers and platform"},
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 2)
			if err != nil {
				return err
			}
			o := manifestInspectOptions{Ref: args[len(args)-1], Insecure: c.Bool("insecure"), Verbose: c.Bool("verbose")}
			if len(args) == 2 {
				o.List = args[0]
			}
			return runManifestInspect(c.Context, e, o)
		},
	}
}

func runManifestInspect(ctx context.Context, e *env, o manifestInspectOptions) error {
	ref, err := registry.ParseReference(o.Ref)
	if err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	if o.List != "" {
		return inspectMember(ctx, e, store, o)
	}
	d, err := store.Draft(ctx, ref.String())
	if err == nil {
		return inspectDraft(ctx, e, d, o)
	}
	if !errors.As(err, new(*layout.NotFoundError)) {
		return err
	}
	client, err := e.registryClientFor(o.Insecure, nil)
	if err != nil {
		return err
	}
	img, err := client.Get(ctx, ref)
	if err == nil {
		err = inspectRemote(ctx, e, img, ref, o)
	}
	return concerning("manifest inspect", o.Ref, asNoManifest(err, ref))
}

// inspectMember shows one manifest of a local list.
func inspectMember(ctx context.Context, e *env, store *layout.Store, o manifestInspectOptions) error {
	list, err := listName(o.List)
	if err != nil {
		return err
	}
	d, err := store.Draft(ctx, list.String())
	if errors.As(err, new(*layout.NotFoundError)) {
		return noList(list, "manifest")
	}
	if err != nil {
		return err
	}
	m, err := memberOf(d, o.Ref, "manifest")
	if err != nil {
		return err
	}
	if o.Verbose {
		return writeIndented(&e.Out, verboseManifest(*m))
	}
	return writeManifest(&e.Out, m.Raw, m.Descriptor.MediaType)
}

func inspectDraft(ctx context.Context, e *env, d *layout.Draft, o manifestInspectOptions) error {
	if !o.Verbose {
		raw, err := d.RawManifest(ctx)
		if err != nil {
			return err
		}
		return writeManifest(&e.Out, raw, d.Descriptor().MediaType)
	}
	return writeIndented(&e.Out, verboseManifests(d.Members))
}

// inspectRemote shows what a registry has, byte for byte but for the white space.
func inspectRemote(ctx context.Context, e *env, img *registry.Image, ref reference.Named, o manifestInspectOptions) error {
	root := img.Descriptor()
	if !o.Verbose {
		return writeManifest(&e.Out, img.RawManifest(), root.MediaType)
	}
	members, err := layout.Members(ctx, img, ref.String(), digestedBy(ref))
	if err != nil {
		return err
	}
	list := verboseManifests(members)
	if !root.MediaType.IsIndex() {
		return writeIndented(&e.Out, list[0])
	}
	return writeIndented(&e.Out, list)
}

// writeManifest indents a manifest by tabs and an index by three blanks, as
// docker does.
func writeManifest(w io.Writer, raw []byte, mediaType types.MediaType) error {
	indent := "\t"
	if mediaType.IsIndex() {
		indent = "   "
	}
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", indent); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(w)
	return err
}

func writeIndented(w io.Writer, v any) error {
	raw, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	_, err = w.Write(append(raw, '\n'))
	return err
}

// shownManifest is docker's ImageManifest, field by field.
type shownManifest struct {
	Ref              string
	Descriptor       ocispecs.Descriptor
	Raw              []byte          `json:",omitempty"`
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

func verboseManifests(members []layout.Member) []shownManifest {
	list := make([]shownManifest, len(members))
	for i, m := range members {
		list[i] = verboseManifest(m)
	}
	return list
}

func verboseManifest(m layout.Member) shownManifest {
	d := m.Descriptor
	shown := shownManifest{Ref: m.Ref, Raw: m.Raw, Descriptor: ocispecs.Descriptor{
		MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size,
		Annotations: d.Annotations, ArtifactType: d.ArtifactType, Platform: ociPlatform(d.Platform),
	}}
	if d.MediaType == types.DockerManifestSchema2 {
		shown.SchemaV2Manifest = m.Raw
	} else {
		shown.OCIManifest = m.Raw
	}
	return shown
}

func ociPlatform(p *v1.Platform) *ocispecs.Platform {
	if p == nil {
		return nil
	}
	return &ocispecs.Platform{
		Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant,
	}
}
