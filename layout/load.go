package layout

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// LoadOptions say what of an archive is wanted.
type LoadOptions struct {
	// Platforms are those children of each index whose content is wanted, nil
	// all that are there, as in [PutOptions].
	Platforms []v1.Platform
	// RefNames has bare tags, which other tools gave the images of OCI archives,
	// kept beside names.
	RefNames bool
	// Progress is told of layers as they are read. The descriptors have a
	// digest and a size, no type.
	Progress Progress
}

// loaded is an image found in an archive.
type loaded struct {
	desc  v1.Descriptor
	names []string
	refs  []string // what is no name: a bare tag
	tree  *tree
}

// Load reads an archive to its end and takes over every image in it: docker's
// archives of every age, OCI archives, and those that are both; gzip, zstd, xz
// or bzip2 may be around it. Files may come in any order; r need not seek, but
// of a file that is not compressed the large members are read side by side, and
// where the file system can, the store shares their blocks.
// A blob may be missing if the store has it.
//
// Blobs, manifests and configs keep their digests. docker's archives have no
// manifests: these are made, always the same for the same archive, and the
// layers stay as they are. A layer that is compressed is not unpacked: whether
// its content has the diffID that the config states is found out by whoever
// unpacks it, as with every image that is pulled.
//
// One Image per name is returned, in the archive's order, and one for an image
// without a name. If anything is wrong nothing is named, and nothing stays.
// Errors are [*InvalidError], [*DigestError], [*MissingError],
// [*platform.NoMatchError], and those of reading r.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]*Image, error) {
	images, err := s.load(ctx, r, o)
	var late *placingError
	if errors.As(err, &late) {
		_, _ = s.Collect(ctx) // what was placed before the failure; if it can't be done now, then later
		err = late.err
	}
	return images, err
}

// placingError is one that happened when blobs were being moved into the store.
type placingError struct{ err error }

func (e *placingError) Error() string { return e.err.Error() }

func (s *Store) load(ctx context.Context, r io.Reader, o LoadOptions) ([]*Image, error) {
	release, err := s.share(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	a, err := s.readArchive(ctx, r, o.Progress)
	defer a.cleanUp()
	if err != nil {
		return nil, err
	}
	found, err := a.images(ctx, o.Platforms)
	if err != nil {
		return nil, err
	}
	images, err := a.take(ctx, found)
	if err == nil && o.RefNames {
		err = s.referAll(ctx, found)
	}
	if err != nil {
		return nil, &placingError{err}
	}
	return images, nil
}

// images finds out which format the archive has. If it has both, OCI's index
// says what there is, and both say how it is called.
func (a *archive) images(ctx context.Context, want []v1.Platform) ([]*loaded, error) {
	ociIndex, err1 := a.text(indexFile)
	docker, err2 := a.text(dockerManifestFile)
	legacy, err3 := a.text(legacyFile)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return nil, err
	}
	var found []*loaded
	var err error
	switch {
	case ociIndex != nil:
		found, err = a.ociImages(ociIndex)
	case docker != nil:
		found, err = a.dockerImages(docker)
	case legacy != nil || a.hasLegacy():
		found, err = a.legacyImages(legacy)
	default:
		err = invalid("archive", "neither index.json nor manifest.json is in it: no image archive")
	}
	if err != nil {
		return nil, err
	}
	if len(found) > maxImages {
		return nil, invalid("archive", "more than %d images in it", maxImages)
	}
	for _, l := range found {
		if err := a.gather(ctx, l, want); err != nil {
			return nil, err
		}
	}
	if ociIndex != nil && docker != nil {
		err = a.addDockerNames(found, docker)
	}
	return found, err
}

// ociImages are the entries of an archive's index.json.
func (a *archive) ociImages(raw []byte) ([]*loaded, error) {
	var x v1.IndexManifest
	if err := parseJSON(raw, &x); err != nil {
		return nil, &InvalidError{What: "archive", Reason: "its index.json is no image index", Err: err}
	}
	if len(x.Manifests) == 0 {
		return nil, invalid("archive", "its index.json names no image")
	}
	var found []*loaded
	byDigest := map[v1.Hash]*loaded{}
	for _, d := range x.Manifests {
		if err := checkDescriptor(d, "archive: index.json"); err != nil {
			return nil, err
		}
		name, ref := entryName(d.Annotations[nameAnnotation], d.Annotations[refNameAnnotation])
		a.embedded(d)
		d.Annotations, d.Data, d.URLs = nil, nil, nil
		if raw, err := json.Marshal(d); err != nil || len(raw) > maxEntry {
			return nil, invalid("archive", "its index.json has a descriptor of %d bytes", len(raw))
		}
		l := byDigest[d.Digest]
		if l == nil {
			l = &loaded{desc: d}
			byDigest[d.Digest] = l
			found = append(found, l)
		}
		if err := l.addName(name); err != nil {
			return nil, err
		}
		if name == "" && ref != "" && len(l.refs) < maxNames {
			l.refs = append(l.refs, ref)
		}
	}
	return found, nil
}

func (l *loaded) addName(name string) error {
	if name == "" || slices.Contains(l.names, name) {
		return nil
	}
	if len(l.names) == maxNames {
		return invalid("archive", "an image with more than %d names", maxNames)
	}
	full, err := entryNames([]string{name}, l.desc.Digest)
	if err == nil && !slices.Contains(l.names, full[0]) {
		l.names = append(l.names, full[0])
	}
	return err
}

// addDockerNames takes the names of manifest.json, whose images are known by
// their configs.
func (a *archive) addDockerNames(found []*loaded, raw []byte) error {
	items, err := parseDockerManifest(raw)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, l := range found {
		for _, n := range l.names {
			named[n] = true
		}
	}
	for _, it := range items {
		config, err := a.file(it.Config)
		if err != nil {
			return err
		}
		for _, l := range found {
			if !l.hasConfig(config.digest) {
				continue
			}
			if err := l.addDockerNames(it.RepoTags, named); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// addDockerNames adds the tags that the OCI side didn't give to anything.
func (l *loaded) addDockerNames(tags []string, named map[string]bool) error {
	for _, t := range tags {
		full, err := entryNames([]string{t}, l.desc.Digest)
		if err != nil {
			return err
		}
		if len(l.names) == maxNames {
			return invalid("archive", "an image with more than %d names", maxNames)
		}
		if !named[full[0]] {
			named[full[0]] = true
			l.names = append(l.names, full[0])
		}
	}
	return nil
}

func (l *loaded) hasConfig(h v1.Hash) bool {
	return slices.ContainsFunc(l.tree.docs, func(d *document) bool { return d.config != nil && d.config.Digest == h })
}

// gather reads the manifests of l and makes sure that all it needs is there.
func (a *archive) gather(ctx context.Context, l *loaded, want []v1.Platform) error {
	w := walker{read: a.readDoc, sparse: true}
	if len(want) > 0 {
		all, err := leaves(ctx, a.readDoc, l.desc, true)
		if err != nil {
			return err
		}
		if w.keep, err = choosePresent(all, a.present(ctx, all), want); err != nil {
			return err
		}
	}
	t, err := walk(ctx, l.desc, w)
	if err != nil {
		return err
	}
	for _, d := range t.blobs {
		a.embedded(d)
	}
	if len(t.docs) > 0 {
		l.desc.MediaType = t.docs[0].desc.MediaType
	}
	l.tree = t
	for _, doc := range t.docs {
		a.walked += int64(len(doc.raw))
	}
	if a.walked > maxDocuments {
		return invalid("archive", "its images have more than %d bytes of manifests", maxDocuments)
	}
	return a.complete(t)
}

// present are the leaves whose manifest can be read.
func (a *archive) present(ctx context.Context, all []v1.Descriptor) []v1.Descriptor {
	return slices.DeleteFunc(slices.Clone(all), func(d v1.Descriptor) bool {
		_, err := a.readDoc(ctx, d, maxManifest)
		return err != nil
	})
}

// complete finds blobs that are missing. Below an index a platform may be left
// out, but not a part of one: if the archive has a layer that only an
// incomplete platform needs, it has lost the others.
func (a *archive) complete(t *tree) error {
	whole := map[v1.Hash]bool{}
	var incomplete []*document
	var images int
	for _, doc := range t.docs {
		if doc.isIndex() {
			continue
		}
		if missing := a.missing(doc); missing == nil {
			for _, d := range doc.all() {
				whole[d.Digest] = true
			}
			if !platform.IsAttestation(doc.desc) {
				images++
			}
		} else if doc == t.docs[0] {
			return missing
		} else {
			incomplete = append(incomplete, doc)
		}
	}
	for _, doc := range incomplete {
		lost := slices.ContainsFunc(doc.layers, func(d v1.Descriptor) bool {
			return a.blob(d.Digest) != nil && !whole[d.Digest]
		})
		if lost || images == 0 {
			return a.missing(doc)
		}
	}
	return a.something(t, images)
}

// something refuses an index below which there is nothing, and a blob that is
// an image by itself and isn't there.
func (a *archive) something(t *tree, images int) error {
	expected := t.blobs
	if len(t.docs) > 0 {
		expected = t.docs[0].children
	}
	if images > 0 {
		return nil
	}
	for _, d := range expected {
		if !a.has(d) {
			return &MissingError{Digest: d.Digest}
		}
	}
	return nil
}

func (a *archive) missing(doc *document) error {
	for _, d := range doc.all() {
		if i := a.blob(d.Digest); i != nil && i.size != d.Size {
			return &DigestError{Digest: d.Digest, Size: d.Size, Bytes: i.size}
		}
		if !a.has(d) {
			return &MissingError{Digest: d.Digest}
		}
	}
	return nil
}

// take moves the blobs into the store and names the images, all in one step.
func (a *archive) take(ctx context.Context, found []*loaded) ([]*Image, error) {
	var blobs, docs []v1.Descriptor
	for _, l := range found {
		blobs = append(blobs, l.tree.blobs...)
		for _, doc := range l.tree.docs {
			docs = append(docs, doc.desc)
		}
	}
	for _, some := range [][]v1.Descriptor{blobs, docs} { // a manifest only comes after what it names
		if err := a.placeAll(ctx, some); err != nil {
			return nil, err
		}
	}
	return a.store.nameAll(ctx, found)
}

// placeAll brings blobs into the store, durably.
func (a *archive) placeAll(ctx context.Context, all []v1.Descriptor) error {
	for _, d := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.place(d); err != nil {
			return err
		}
	}
	return a.store.syncBlobs(all)
}

// nameAll names what was loaded, in one change of index.json.
func (s *Store) nameAll(ctx context.Context, found []*loaded) ([]*Image, error) {
	var images []*Image
	for _, l := range found {
		img := s.surveyed(ctx, l.desc)
		for _, n := range l.names {
			c := *img
			c.name, c.refName = n, n
			images = append(images, &c)
		}
		if len(l.names) == 0 {
			images = append(images, img)
		}
	}
	now := time.Now()
	err := s.edit(ctx, func(x *index) (changed bool, err error) {
		for _, img := range images {
			c, err := x.pointTo(img, now)
			if err != nil {
				return false, err
			}
			changed = changed || c
		}
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	return images, nil
}
