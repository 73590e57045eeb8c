package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

type pushOptions struct {
	Ref      string
	AllTags  bool
	Quiet    bool
	Platform string // empty: the image whole
	ByDigest bool   // Ref has a digest, and is pushed without a tag
	Insecure bool   // certificates are not verified, nor needed
}

func newPushCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "Upload an image to a registry",
		ArgsUsage: "NAME[:TAG]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all-tags", Aliases: []string{"a"}, Usage: "Push all tags of an image to the repository"},
			contentTrustFlag(),
			&cli.StringFlag{Name: "platform", Usage: "Push the manifest of this platform alone, without the index it is in\n" +
				"(as \"os[/arch[/variant]]\")"},
			quietFlag("Suppress verbose output"),
		},
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			e.sayContentTrust(c)
			return runPush(c.Context, e, pushOptions{
				Ref: args[0], AllTags: c.Bool("all-tags"), Quiet: c.Bool("quiet"), Platform: c.String("platform"),
			})
		},
	}
}

func runPush(ctx context.Context, e *env, o pushOptions) error {
	ref, header, err := remoteName("push", o.Ref, o.AllTags)
	if err != nil {
		return err
	}
	if _, ok := ref.(reference.Digested); ok != o.ByDigest {
		return fmt.Errorf("%q names a digest: only a tag can be pushed", o.Ref)
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	images, err := namesToPush(store, ref, o.AllTags)
	if err != nil {
		return concerning("push", o.Ref, err)
	}
	header = append(header, fmt.Sprintf("The push refers to repository [%s]", ref.Name()))
	show := newProgress(e, o.Quiet, pushWords, header...)
	defer show.close()
	client, err := e.registryClientFor(o.Insecure, show.update)
	if err != nil {
		return err
	}
	send := func(ref reference.Named, src *layout.Image) error {
		return client.Push(ctx, ref, withOrigins(store, src, ref)) //nolint:contextcheck // reads local files only
	}
	for _, img := range images {
		to := ref
		if !o.ByDigest {
			if to, err = reference.ParseNormalizedNamed(img.Name()); err != nil {
				return fmt.Errorf("the store's name %q: %w", img.Name(), err)
			}
		}
		if err := pushOne(e, send, img, to, o); err != nil {
			return concerning("push", reference.FamiliarString(to), err)
		}
	}
	return nil
}

// namesToPush returns the entry called ref, or all of its repository's.
func namesToPush(store *layout.Store, ref reference.Named, all bool) ([]*layout.Image, error) {
	if !all {
		found, err := store.Find(ref.String())
		if err != nil {
			return nil, err
		}
		return found[:1], nil
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	var images []*layout.Image
	for _, img := range list {
		if tag, ok := strings.CutPrefix(img.Name(), ref.Name()+":"); ok && !strings.Contains(tag, "/") {
			images = append(images, img)
		}
	}
	if len(images) == 0 {
		return nil, &layout.NotFoundError{Ref: reference.FamiliarName(ref)}
	}
	return images, nil
}

func pushOne(e *env, send func(reference.Named, *layout.Image) error, img *layout.Image, ref reference.Named, o pushOptions) error {
	src, note, err := toPush(img, o)
	if err != nil {
		return err
	}
	if err := send(ref, src); err != nil {
		return err
	}
	if note != "" {
		e.say("%s", note)
	}
	if o.Quiet {
		fmt.Fprintln(&e.Out, ref.String())
		return nil
	}
	d := src.Descriptor()
	fmt.Fprintf(&e.Out, "%s: digest: %s size: %d\n", tagOrDigest(ref), d.Digest, d.Size)
	return nil
}

// toPush returns what of img goes to the registry: the manifest of the platform
// asked for, the whole index, or the one platform of it that the store has, with a
// note that says so.
func toPush(img *layout.Image, o pushOptions) (src *layout.Image, note string, err error) {
	if o.Platform != "" {
		p, err := platform.Parse(o.Platform)
		if err != nil {
			return nil, "", err
		}
		src, err = img.Select(p)
		return src, "", err
	}
	if !img.IsIndex() {
		return img, "", nil
	}
	images, missing, whole, err := presentParts(img)
	if err != nil || whole {
		return img, "", err
	}
	switch len(images) {
	case 0:
		return nil, "", withHint(errors.New("the store has no platform of this image"),
			"%s pull --platform all %s", program, familiarString(img.Name()))
	case 1:
		src, err = img.Select(images[0].Platform)
		if err != nil {
			return nil, "", err
		}
		return src, fmt.Sprintf("note: not all of the multi-platform image is in the store, only %s was pushed\n%s -> %s",
			platform.Format(images[0].Platform), img.Descriptor().Digest, src.Descriptor().Digest), nil
	}
	lacks := firstOf(platformList(missing), "its attestations")
	return nil, "", withHint(fmt.Errorf("the store has only %s of the image, not %s", platformList(images), lacks),
		"%s push --platform %s %s", program, quotedPlatform(images[0].Platform), familiarString(img.Name()))
}

// presentParts says which platforms of an index the store has and which not, and
// whether it has all of the index, attestations included.
func presentParts(img *layout.Image) (present, missing []layout.PlatformInfo, whole bool, err error) {
	images, err := img.Platforms()
	if err != nil {
		return nil, nil, false, err
	}
	for _, one := range images {
		if one.Present {
			present = append(present, one)
		} else {
			missing = append(missing, one)
		}
	}
	whole, err = img.Whole()
	return present, missing, whole, err
}

func platformList(images []layout.PlatformInfo) string {
	names := make([]string, len(images))
	for i, one := range images {
		names[i] = platform.Format(one.Platform)
	}
	return strings.Join(names, ", ")
}
