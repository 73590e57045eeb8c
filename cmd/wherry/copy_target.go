package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// copyTarget is where copies go.
type copyTarget interface {
	// Put brings one there, and tells how it is called there and whether anything
	// that refers to it is new there.
	Put(ctx context.Context, img *copied, as place) (name string, more bool, err error)
	// Has reports whether an image of this name and digest is there whole.
	Has(ctx context.Context, name string, as place, digest v1.Hash) bool
	// Finish makes what was put last.
	Finish(ctx context.Context) error
}

func (c *copier) openTarget(p place) copyTarget {
	switch p.kind {
	case inRegistry:
		return &registryTarget{c}
	case inLayout:
		open := func() (*layout.Store, error) {
			return layout.Open(p.path, layout.WithNotice(func(msg string) { c.env.say("%s", printable(msg)) }))
		}
		return &layoutTarget{copier: c, open: sync.OnceValues(open)}
	}
	return &archiveTarget{copier: c, path: p.path}
}

// registryTarget is any registry.
type registryTarget struct{ *copier }

// Put implements [copyTarget].
func (t *registryTarget) Put(ctx context.Context, img *copied, as place) (name string, more bool, err error) {
	var around registry.Surroundings
	if t.all {
		around = img.around
	}
	done, err := t.client.Copy(ctx, as.repo, img.Source, around)
	if err != nil || !t.all {
		return as.repo.String(), false, err
	}
	signed, err := t.putSigned(ctx, img, as, done.Documents)
	return as.repo.String(), signed || done.Referrers > 0, err
}

// Has implements [copyTarget].
func (t *registryTarget) Has(ctx context.Context, _ string, as place, digest v1.Hash) bool {
	return t.client.Has(ctx, as.repo, digest)
}

// putSigned copies what cosign keeps under tags.
func (t *registryTarget) putSigned(ctx context.Context, img *copied, as place, documents []v1.Hash) (moved bool, err error) {
	signed, err := digestTags(ctx, img, documents)
	if err != nil {
		return false, err
	}
	for _, tag := range signed {
		one, err := img.around.Find(ctx, tag)
		if err != nil {
			return false, err
		}
		to, err := as.tagged(tag)
		if err != nil {
			return false, err
		}
		if t.client.Has(ctx, to.repo, one.Descriptor().Digest) {
			continue
		}
		moved = true
		if _, err := t.client.Copy(ctx, to.repo, t.limited(one.Source), nil); err != nil {
			return false, err
		}
	}
	return moved, nil
}

// Finish implements [copyTarget].
func (t *registryTarget) Finish(context.Context) error { return nil }

// digestTags are the tags that cosign keeps signatures, SBOMs and attestations of
// these manifests under.
func digestTags(ctx context.Context, img *copied, documents []v1.Hash) ([]string, error) {
	tags, err := img.around.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, tag := range tags {
		subject, ok := registry.IsReferrersTag(tag)
		if ok && tag != registry.ReferrersTag(subject) && slices.Contains(documents, subject) {
			found = append(found, tag)
		}
	}
	return found, nil
}

// companion goes along with an image into a layout or an archive, which have no
// other way to say what refers to what.
type companion struct {
	registry.Source
	tag string
}

// companions are the lists of what refers to img and to what is below it, as
// registries without the referrers API have them, and cosign's tags. had is what
// the destination lists already.
func companions(ctx context.Context, img *copied, had func(v1.Hash) ([]v1.Descriptor, error)) ([]companion, error) {
	found, documents, err := registry.Referrals(ctx, img.Source, img.around)
	if err != nil {
		return nil, err
	}
	var all []companion
	lists := map[v1.Hash][]v1.Descriptor{}
	var subjects []v1.Hash
	for _, r := range found {
		if lists[r.Subject] == nil {
			subjects = append(subjects, r.Subject)
		}
		lists[r.Subject] = append(lists[r.Subject], r.Referrer)
	}
	for _, subject := range subjects {
		list, err := had(subject)
		if err != nil {
			return nil, err
		}
		for _, d := range lists[subject] {
			if !slices.ContainsFunc(list, func(h v1.Descriptor) bool { return h.Digest == d.Digest }) {
				list = append(list, d)
			}
		}
		src, err := listOf(img.Source, list)
		if err != nil {
			return nil, err
		}
		all = append(all, companion{src, registry.ReferrersTag(subject)})
	}
	signed, err := digestTags(ctx, img, documents)
	if err != nil {
		return nil, err
	}
	for _, tag := range signed {
		one, err := img.around.Find(ctx, tag)
		if err != nil {
			return nil, err
		}
		all = append(all, companion{one.Source, tag})
	}
	return all, nil
}

// listOf is an index over list.
func listOf(src registry.Source, list []v1.Descriptor) (registry.Source, error) {
	raw, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list})
	if err != nil {
		return nil, err
	}
	return newRoot(src, types.OCIImageIndex, raw)
}

// layoutTarget is a layout, or wherry's store. There is a new one only when
// something is put there.
type layoutTarget struct {
	*copier
	open func() (*layout.Store, error)
}

// Put implements [copyTarget].
func (t *layoutTarget) Put(ctx context.Context, img *copied, as place) (called string, more bool, err error) {
	o := layout.PutOptions{Progress: t.show.update}
	name := img.name
	if as.isStore {
		if name, err = storeName(img, as); err != nil {
			return "", false, err
		}
	} else {
		o.RefName = firstOf(as.ref, img.ref)
	}
	if name != "" && o.RefName == "" {
		o.Names = []string{name}
	}
	store, err := t.open()
	if err != nil {
		return "", false, err
	}
	put, err := store.Put(ctx, img.Source, o)
	if err != nil {
		return "", false, err
	}
	if t.all {
		more, err = t.putCompanions(ctx, store, img, name, o.RefName != "")
	}
	return as.in(firstOf(as.ref, put.Name(), put.RefName())), more, err
}

// Has implements [copyTarget].
func (t *layoutTarget) Has(_ context.Context, name string, as place, digest v1.Hash) bool {
	if _, err := os.Stat(filepath.Join(as.path, "oci-layout")); err != nil {
		return false
	}
	store, err := t.open()
	if err != nil {
		return false // Put will say it
	}
	found, err := store.Find(firstOf(as.ref, name))
	if err != nil || found[0].Descriptor().Digest != digest {
		return false
	}
	if !found[0].IsIndex() {
		all, err := found[0].Platforms() //nolint:contextcheck // reads local files only
		return err == nil && len(all) == 1 && all[0].Present
	}
	_, _, whole, err := presentParts(found[0]) //nolint:contextcheck // reads local files only
	return err == nil && whole
}

// storeName is what an image is called in the store.
func storeName(img *copied, as place) (string, error) {
	if as.ref == "" {
		return img.name, nil
	}
	ref, err := registry.ParseReference(as.ref)
	if err != nil {
		return "", err
	}
	return ref.String(), nil
}

// putCompanions names them in the repository of the image, or bare.
func (t *layoutTarget) putCompanions(ctx context.Context, store *layout.Store, img *copied, name string, bare bool) (more bool, err error) {
	repo := ""
	if named, err := reference.ParseNormalizedNamed(name); err == nil && !bare {
		repo = named.Name()
	}
	all, err := companions(ctx, img, func(h v1.Hash) ([]v1.Descriptor, error) { return store.Referrers(ctx, repo, h) })
	if err != nil {
		return false, err
	}
	had, err := store.Tags(repo)
	if err != nil {
		return false, err
	}
	for _, one := range all {
		if was := had[one.tag]; was != nil && was.Descriptor().Digest == one.Descriptor().Digest {
			continue
		}
		more = true
		o := layout.PutOptions{Progress: t.show.update}
		if repo == "" {
			o.RefName = one.tag
		} else {
			o.Names = []string{repo + ":" + one.tag}
		}
		if _, err := store.Put(ctx, t.limited(one.Source), o); err != nil {
			return false, err
		}
	}
	return more, nil
}

// Finish implements [copyTarget].
func (t *layoutTarget) Finish(context.Context) error { return nil }

// archiveTarget is a file that is written when all that goes into it is known.
type archiveTarget struct {
	*copier
	path   string
	images []layout.Exported
}

// Put implements [copyTarget].
func (t *archiveTarget) Put(ctx context.Context, img *copied, as place) (called string, more bool, err error) {
	e := layout.Exported{Source: img.Source, Name: img.name, RefName: img.ref}
	repo := ""
	if as.ref != "" {
		e.Name, e.RefName = "", as.ref
	} else if named, err := reference.ParseNormalizedNamed(img.name); err == nil {
		repo = named.Name()
	}
	if as.kind == inDockerArchive && as.ref != "" { // docker knows nothing but whole names
		ref, err := registry.ParseReference(as.ref)
		if err != nil {
			return "", false, err
		}
		e.Name, e.RefName, repo = ref.String(), "", ref.Name()
	}
	t.images = append(t.images, e)
	if !t.all {
		return as.in(firstOf(e.Name, e.RefName)), true, nil
	}
	beside, err := companions(ctx, img, func(v1.Hash) ([]v1.Descriptor, error) { return nil, nil })
	for _, one := range beside {
		x := layout.Exported{Source: t.limited(one.Source), RefName: one.tag}
		if repo != "" {
			x.Name, x.RefName = repo+":"+one.tag, ""
		}
		t.images = append(t.images, x)
	}
	return as.in(firstOf(e.Name, e.RefName)), true, err
}

// Has implements [copyTarget].
func (t *archiveTarget) Has(context.Context, string, place, v1.Hash) bool { return false }

// Finish implements [copyTarget].
func (t *archiveTarget) Finish(ctx context.Context) error {
	packed, err := compressionOf(saveOptions{Output: t.path, Refs: []string{"IMAGE"}})
	if err != nil {
		return err
	}
	return writeFile(t.path, func(w io.Writer) error {
		return layout.Export(ctx, w, t.images, layout.SaveOptions{Compression: packed, Progress: t.show.update})
	})
}

// checkArchive finds what can't be written before anything is read.
func checkArchive(p place) error {
	if p.kind != inOCIArchive && p.kind != inDockerArchive {
		return nil
	}
	if _, err := compressionOf(saveOptions{Output: p.path, Refs: []string{"IMAGE"}}); err != nil {
		return err
	}
	if dir := filepath.Dir(p.path); !isFolder(dir) {
		return fmt.Errorf("there is no folder %q", dir)
	}
	return nil
}
