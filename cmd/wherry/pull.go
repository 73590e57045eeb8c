package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type pullOptions struct {
	Ref       string
	AllTags   bool
	Quiet     bool
	Platforms []string // empty: this machine's; "all": every one
}

func newPullCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "Download an image from a registry",
		ArgsUsage: "NAME[:TAG|@DIGEST]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all-tags", Aliases: []string{"a"}, Usage: "Download all tagged images in the repository"},
			contentTrustFlag(),
			&cli.StringSliceFlag{Name: "platform", Usage: "Keep these platforms of a multi-platform image, \"all\" for every one\n" +
				"(default: this machine's, or DOCKER_DEFAULT_PLATFORM)"},
			quietFlag("Suppress verbose output"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			e.sayContentTrust(c)
			return runPull(c.Context, e, pullOptions{
				Ref: args[0], AllTags: c.Bool("all-tags"), Quiet: c.Bool("quiet"), Platforms: c.StringSlice("platform"),
			})
		},
	}
}

func runPull(ctx context.Context, e *env, o pullOptions) error {
	ref, header, err := remoteName("pull", o.Ref, o.AllTags)
	if err != nil {
		return err
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	p := &puller{env: e, store: store, quiet: o.Quiet, header: header}
	if p.platforms, err = e.wantedPlatforms(o.Platforms); err != nil {
		return err
	}
	if p.client, err = e.registryClient(nil); err != nil {
		return err
	}
	refs := []reference.Named{ref}
	if o.AllTags {
		if refs, err = p.tags(ctx, ref); err != nil {
			return concerning("pull", o.Ref, err)
		}
	}
	for _, ref := range refs {
		if err := p.pull(ctx, ref); err != nil {
			return concerning("pull", reference.FamiliarString(ref), err)
		}
	}
	return nil
}

// wantedPlatforms reads --platform: nil means all of them, and a choice that the
// user did not make is marked as such.
func (e *env) wantedPlatforms(flag []string) (wanted, error) {
	if len(flag) == 0 {
		if p := e.Getenv("DOCKER_DEFAULT_PLATFORM"); p != "" {
			flag = []string{p}
		}
	}
	switch {
	case len(flag) == 0:
		return wanted{list: []v1.Platform{platform.Default()}}, nil
	case len(flag) == 1 && flag[0] == "all":
		return wanted{explicit: true}, nil
	}
	list, err := platform.ParseAll(flag)
	return wanted{list: list, explicit: true}, err
}

// wanted are the platforms to keep of what is pulled.
type wanted struct {
	list     []v1.Platform // nil: all
	explicit bool          // somebody asked for them
}

// of returns the platforms to ask of an image: one that is made for a single
// platform is taken as it is, unless the user named another.
func (w wanted) of(d v1.Descriptor) []v1.Platform {
	if !w.explicit && !d.MediaType.IsIndex() {
		return nil
	}
	return w.list
}

type puller struct {
	env       *env
	store     *layout.Store
	client    *registry.Client
	platforms wanted
	quiet     bool
	header    []string // to be said above the next image
}

func (p *puller) tags(ctx context.Context, repo reference.Named) ([]reference.Named, error) {
	tags, err := p.client.Tags(ctx, repo)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, errors.New("the repository has no tags")
	}
	refs := make([]reference.Named, len(tags))
	for i, tag := range tags {
		if refs[i], err = reference.WithTag(reference.TrimNamed(repo), tag); err != nil {
			return nil, fmt.Errorf("the registry lists the tag %q: %w", tag, err)
		}
	}
	return refs, nil
}

// pull brings one name into the store and says so in docker's words.
func (p *puller) pull(ctx context.Context, ref reference.Named) error {
	img, err := p.client.Get(ctx, ref)
	if err != nil {
		return err
	}
	before := p.current(ref)
	p.header = append(p.header, fmt.Sprintf("%s: Pulling from %s", tagOrDigest(ref), reference.FamiliarName(ref)))
	show := newProgress(p.env, p.quiet, pullWords, p.header...)
	p.header = nil
	kept, err := p.store.Put(ctx, img, layout.PutOptions{
		Names:     []string{ref.String()},
		Platforms: p.platforms.of(img.Descriptor()),
		Progress:  show.update,
	})
	show.close()
	if err != nil {
		return err
	}
	if err := p.noteForeign(kept); err != nil { //nolint:contextcheck // reads a local files
		return err
	}
	if !p.quiet {
		status := "Downloaded newer image for"
		if before == img.Descriptor().Digest && !show.moved() {
			status = "Image is up to date for"
		}
		fmt.Fprintf(&p.env.Out, "Digest: %s\nStatus: %s %s\n", img.Descriptor().Digest, status, reference.FamiliarString(ref))
	}
	fmt.Fprintln(&p.env.Out, ref.String())
	return nil
}

// noteForeign tells that an image which is for one platform alone is not for this
// machine, where nobody has asked for it.
func (p *puller) noteForeign(img *layout.Image) error {
	if p.platforms.explicit || img.IsIndex() {
		return nil
	}
	of, err := img.Platforms()
	if err != nil || len(of) != 1 || of[0].Platform.OS == "" {
		return err
	}
	own, d := platform.Default(), v1.Descriptor{Platform: &of[0].Platform}
	if _, err := platform.Select([]v1.Descriptor{d}, own); err != nil {
		p.env.note(fmt.Sprintf("%s is for %s, this machine is %s", familiarString(img.Name()), printable(platform.Format(of[0].Platform)), platform.Format(own)))
	}
	return nil
}

// current is the digest that ref has in the store, zero if it has none.
func (p *puller) current(ref reference.Named) v1.Hash {
	found, err := p.store.Find(ref.String())
	if err != nil {
		return v1.Hash{}
	}
	return found[0].Descriptor().Digest
}

func tagOrDigest(ref reference.Named) string {
	if d, ok := ref.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}
