package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

func newIndexCommand(e *env) *cli.Command {
	c := group("index", "Manage image indexes",
		indexAddCommand(e),
		indexAnnotateCommand(e),
		indexCreateCommand(e),
		indexInspectCommand(e),
		indexLsCommand(e),
		indexPushCommand(e),
		indexRmCommand(e),
	)
	c.Description = `An index lets one name stand for the same image on several platforms. It is put
together as a draft: the draft is in the store beside the images, and is none of
them; "push" publishes it, and "pull" makes an image of what was pushed. Drafts
are docker's manifest lists: "manifest" works on the same ones.

To change an index that a registry has, begin with it: "index create NAME NAME".`
	return c
}

// indexFlags are what says of an index itself what it is.
func indexFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "annotation", Usage: "Annotate the index (KEY=VALUE, or KEY= to take one away)"},
		&cli.StringFlag{Name: "artifact-type", Usage: "Set the artifact type of the index"},
		&cli.StringFlag{Name: "subject", Usage: "Set the image in the registry that the index refers to"},
	}
}

// indexIdentity is the value of indexFlags.
type indexIdentity struct {
	Annotations  map[string]string
	ArtifactType string
	Subject      string
}

func indexIdentityOf(c *cli.Context) (indexIdentity, error) {
	annotations, err := parseAnnotations(c.StringSlice("annotation"))
	if err != nil {
		err = &usageError{command: commandPath(c), err: err}
	}
	return indexIdentity{Annotations: annotations, ArtifactType: c.String("artifact-type"), Subject: c.String("subject")}, err
}

func (i indexIdentity) isEmpty() bool {
	return len(i.Annotations) == 0 && i.ArtifactType == "" && i.Subject == ""
}

// parseAnnotations reads KEY=VALUE; an empty value takes one away.
func parseAnnotations(list []string) (map[string]string, error) {
	set := map[string]string{}
	for _, kv := range list {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("invalid annotation %q: want KEY=VALUE", kv)
		}
		set[key] = value
	}
	return set, nil
}

// indexSources are the images that an index gets, as they were asked for.
type indexSources struct {
	Index     string
	Sources   []string
	Platforms []string // empty: all of them
	Insecure  bool
}

// indexWork is what the commands on an index have in common.
type indexWork struct {
	env    *env
	store  *layout.Store
	client *registry.Client
	name   reference.Named

	only []byte // what the one source stands for; nil of several
}

func newIndexWork(e *env, index string, insecure bool) (*indexWork, error) {
	name, err := listName(index)
	if err != nil {
		return nil, err
	}
	store, err := e.openStore()
	if err != nil {
		return nil, err
	}
	client, err := e.registryClientFor(insecure, nil)
	return &indexWork{env: e, store: store, client: client, name: name}, err
}

// find returns the members that the sources are, or have, for the platforms asked for.
func (w *indexWork) find(ctx context.Context, command string, o indexSources) ([][]layout.Member, error) {
	platforms, err := platform.ParseAll(o.Platforms)
	if err != nil {
		return nil, err
	}
	finder := memberFinder{
		env: w.env, store: w.store, client: w.client, list: w.name, command: "index " + command, platforms: platforms,
	}
	groups, err := finder.findAll(ctx, o.Sources)
	if len(o.Sources) == 1 {
		w.only = finder.roots[0]
	}
	if err != nil || len(platforms) == 0 {
		return groups, err
	}
	var all []layout.Member
	for i, group := range groups {
		some := layout.MembersFor(group, platforms)
		if len(some) == 0 {
			w.env.say("note: %s has none of the platforms asked for", o.Sources[i])
		}
		groups[i], all = some, append(all, group...)
	}
	for _, p := range platforms {
		if len(layout.MembersFor(all, []v1.Platform{p})) == 0 {
			return nil, fmt.Errorf("none of the sources is for %s", platform.Format(p))
		}
	}
	return groups, nil
}

// put brings the members into the draft, each manifest once.
func put(d *layout.Draft, groups [][]layout.Member) {
	for _, group := range groups {
		if len(group) == 0 {
			continue
		}
		there := map[v1.Hash]bool{}
		for _, m := range d.Members {
			there[m.Descriptor.Digest] = m.From != group[0].From
		}
		var fresh []layout.Member
		for _, m := range group {
			if !there[m.Descriptor.Digest] {
				fresh = append(fresh, m)
			}
		}
		d.Put(fresh)
	}
}

// identify sets what the index says of itself.
func (w *indexWork) identify(ctx context.Context, i indexIdentity) (func(*layout.Draft), error) {
	var subject *v1.Descriptor
	if i.Subject != "" {
		ref, err := registry.ParseReference(i.Subject)
		if err != nil {
			return nil, err
		}
		img, err := w.client.Get(ctx, ref)
		if err != nil {
			return nil, concerning("index", i.Subject, asNoManifest(err, ref))
		}
		d := img.Descriptor()
		subject = &d
	}
	return func(d *layout.Draft) {
		d.Note(i.Annotations)
		if i.ArtifactType != "" {
			d.ArtifactType = i.ArtifactType
		}
		if subject != nil {
			d.Subject = subject
		}
	}, nil
}

// edit changes a draft that is there.
func (w *indexWork) edit(ctx context.Context, change func(*layout.Draft) error) error {
	_, err := w.store.EditDraft(ctx, w.name.String(), func(d *layout.Draft) error {
		if d.IsNew() {
			return noList(w.name, "index")
		}
		return change(d)
	})
	return err
}

// draft is the one there is.
func (w *indexWork) draft(ctx context.Context) (*layout.Draft, error) {
	d, err := w.store.Draft(ctx, w.name.String())
	if errors.As(err, new(*layout.NotFoundError)) {
		return nil, noList(w.name, "index")
	}
	return d, err
}
