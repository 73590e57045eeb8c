package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type imagetoolsCreateOptions struct {
	Sources      []string
	Files        []string
	Tags         []string
	Annotations  []string
	Platforms    []string
	Append       bool
	DryRun       bool
	PreferIndex  bool
	Quiet        bool
	MetadataFile string
}

func imagetoolsCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "Create a new image based on source images",
		ArgsUsage: "[SOURCE...]",
		Flags: byName(append(
			imagetoolsFlags(),
			&cli.StringSliceFlag{Name: "annotation", Usage: "Add annotation to the image (as \"index:KEY=VALUE\", \"manifest-descriptor[PLATFORM]:KEY=VALUE\")"},
			&cli.BoolFlag{Name: "append", Usage: "Append to existing manifest"},
			&cli.BoolFlag{Name: "dry-run", Usage: "Show final image instead of pushing"},
			&cli.StringSliceFlag{Name: "file", Aliases: []string{"f"}, Usage: "Read source descriptor from file"},
			&cli.StringFlag{Name: "metadata-file", Usage: "Write create result metadata to a file"},
			&cli.StringSliceFlag{Name: "platform", Aliases: []string{"p"}, Usage: "Filter specified platforms of target image"},
			&cli.BoolFlag{Name: "prefer-index", Value: true, Usage: "When only a single source is specified, prefer outputting an image index or\n" +
				"manifest list instead of performing a carbon copy (default true)"},
			&cli.StringFlag{Name: "progress", Value: "auto", Usage: "Set type of progress output (\"auto\", \"none\", \"plain\", \"tty\")"},
			&cli.StringSliceFlag{Name: "tag", Aliases: []string{"t"}, Usage: "Set reference for new image"},
		)),
		Action: func(c *cli.Context) error {
			e.sayNoEffect(c, "builder", "debug")
			o := imagetoolsCreateOptions{
				Sources: c.Args().Slice(), Files: c.StringSlice("file"), Tags: c.StringSlice("tag"),
				Annotations: c.StringSlice("annotation"), Platforms: c.StringSlice("platform"), Append: c.Bool("append"),
				DryRun: c.Bool("dry-run"), PreferIndex: c.Bool("prefer-index"), MetadataFile: c.String("metadata-file"),
				Quiet: c.String("progress") == "none" || c.String("progress") == "quiet",
			}
			if err := o.check(c.String("progress")); err != nil {
				return &usageError{command: commandPath(c), err: err}
			}
			return runImagetoolsCreate(c.Context, e, o)
		},
	}
}

func (o imagetoolsCreateOptions) check(progress string) error {
	switch {
	case !slices.Contains([]string{"auto", "none", "plain", "quiet", "tty"}, progress):
		return fmt.Errorf("invalid progress type %q: want auto, none, plain or tty", progress)
	case len(o.Sources) == 0 && len(o.Files) == 0:
		return errors.New("no sources specified")
	case !o.DryRun && len(o.Tags) == 0:
		return errors.New("can't push with no tags specified, please set --tag or --dry-run")
	}
	return nil
}

func runImagetoolsCreate(ctx context.Context, e *env, o imagetoolsCreateOptions) error {
	tags, sources, err := o.read()
	if err != nil {
		return err
	}
	j := joining{say: e.say, preferIndex: o.PreferIndex}
	if j.annotations, err = imagetoolsAnnotations(o.Annotations); err != nil {
		return err
	}
	if j.platforms, err = platform.ParseAll(o.Platforms); err != nil {
		return err
	}
	show := newProgress(e, o.Quiet, pushWords)
	defer show.close()
	client, err := e.registryClient(show.update)
	if err != nil {
		return err
	}
	if err := readImageSources(ctx, client, sources); err != nil {
		return err
	}
	if err := j.join(ctx, client, sources); err != nil {
		return err
	}
	if o.DryRun {
		fmt.Fprintf(&e.Out, "%s\n", j.raw)
		return nil
	}
	if err := j.push(ctx, client, tags, o.Quiet); err != nil {
		return err
	}
	if o.MetadataFile == "" {
		return nil
	}
	return writeImagetoolsMetadata(o.MetadataFile, map[string]any{
		"containerimage.descriptor": j.desc, "image.name": strings.Join(repositories(tags), ","),
	})
}

// writeImagetoolsMetadata writes what buildx does, without a line break at the end.
func writeImagetoolsMetadata(path string, metadata map[string]any) error {
	text, err := marshalJSON(metadata, "  ")
	if err == nil {
		err = writeFile(path, func(w io.Writer) error {
			_, err := w.Write([]byte(strings.TrimSuffix(string(text), "\n")))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("metadata file: %w", err)
	}
	return nil
}

// repositories of names, sorted, each once.
func repositories(names []reference.Named) []string {
	var repos []string
	for _, n := range names {
		repos = append(repos, n.Name())
	}
	slices.Sort(repos)
	return slices.Compact(repos)
}

// read reads the names. What is called by a digest alone is of the one repository that
// the command is about.
func (o imagetoolsCreateOptions) read() (tags []reference.Named, sources []*imageSource, err error) {
	for _, t := range o.Tags {
		if _, err := registryOnly(t); err != nil {
			return nil, nil, err
		}
		tag, err := listName(t)
		if err != nil {
			return nil, nil, err
		}
		tags = append(tags, tag)
	}
	var typed []string
	if o.Append && len(o.Tags) > 0 {
		typed = append(typed, o.Tags[0])
	}
	for _, file := range o.Files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		typed = append(typed, strings.TrimSpace(string(text)))
	}
	names := slices.Clone(tags)
	for _, t := range append(typed, o.Sources...) {
		s, err := parseImageSource(t)
		if err != nil {
			return nil, nil, err
		}
		if s.ref != nil {
			names = append(names, s.ref)
		}
		sources = append(sources, s)
	}
	return tags, sources, placeSources(sources, names)
}

func placeSources(sources []*imageSource, names []reference.Named) error {
	repos := repositories(names)
	if len(repos) == 0 {
		return errors.New("no repositories specified, please set a reference in tag or source")
	}
	for _, s := range sources {
		if s.ref != nil {
			continue
		}
		if len(repos) > 1 {
			return fmt.Errorf("multiple repositories specified, cannot infer repository for %q", s.typed)
		}
		if err := s.inRepository(names[0]); err != nil {
			return err
		}
	}
	return nil
}

// readImageSources asks for several at once.
func readImageSources(ctx context.Context, client *registry.Client, sources []*imageSource) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, s := range sources {
		g.Go(func() error { return concerning("buildx imagetools create", s.typed, s.read(ctx, client)) })
	}
	return g.Wait()
}

// push sends what was joined to every name, with all that it needs.
func (j *joining) push(ctx context.Context, client *registry.Client, tags []reference.Named, quiet bool) error {
	root, err := v1Descriptor(j.desc)
	if err != nil {
		return err
	}
	src := newListSource(&atHand{desc: root, raw: j.raw}, client)
	for d, s := range j.from {
		if h, err := v1.NewHash(d.String()); err == nil {
			src.comesFrom(v1.Descriptor{Digest: h}, s.ref)
		}
	}
	if !isIndexType(j.desc.MediaType) {
		src.comesFrom(root, j.only.ref)
		if err := src.learn(j.raw, j.only.ref); err != nil {
			return err
		}
	}
	for i, tag := range tags {
		if !quiet {
			j.say("pushing %s to %s", j.desc.Digest, tag)
		}
		var around registry.Surroundings = &attestingArtifacts{src: src, root: root.Digest, to: tag}
		if slices.ContainsFunc(tags[:i], func(t reference.Named) bool { return t.Name() == tag.Name() }) {
			around = nil // they are there
		}
		if _, err := client.Copy(ctx, tag, src, around); err != nil {
			return concerning("buildx imagetools create", tag.String(), err)
		}
	}
	return nil
}
