package layout

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/platform"
)

// SaveOptions say what goes into an archive.
type SaveOptions struct {
	// Platforms are those children of each index whose content is wanted, nil
	// all that the store has.
	Platforms []v1.Platform
	// Compression is what is put around the archive, by default nothing: most
	// layers are compressed already.
	Compression Compression
	// Progress is told of every blob as it is written.
	Progress Progress
}

// saved is an image on its way into an archive.
type saved struct {
	img  *Image
	tree *tree
}

// Save writes one tar archive with all the images, each under its name, that is
// an OCI archive (oci-layout, index.json) and docker's (manifest.json) in one.
// Blobs are as they are stored, an index keeps all the platforms that are
// present; manifest.json, which knows no platforms, has linux/amd64 of each, or
// else the first: the archive is the same on every machine. The bytes depend on nothing but the images, their names and what of
// them is present.
//
// If w is a file, it shares the blocks of large blobs with the store where the
// file system can (XFS, btrfs).
//
// Errors before the first byte are [*MissingError], [*DigestError] (of
// manifests; layers are not hashed) and [*platform.NoMatchError]; those of w are
// [*WriteError].
func (s *Store) Save(ctx context.Context, w io.Writer, images []*Image, o SaveOptions) error {
	release, err := s.shareForReading(ctx)
	if err != nil {
		return err
	}
	defer release()
	all, err := s.gather(ctx, images, o.Platforms)
	if err != nil {
		return err
	}
	blobs, err := s.savedBlobs(all)
	if err != nil {
		return err
	}
	t, err := newTarWriter(w, o.Compression)
	if err != nil {
		return err
	}
	if err := savedIndexes(ctx, t, all); err != nil {
		return err
	}
	t.dir(blobsDir)
	for n, d := range blobs {
		if n == 0 || blobs[n-1].Digest.Algorithm != d.Digest.Algorithm {
			t.dir(blobsDir + "/" + d.Digest.Algorithm)
		}
		if t.err == nil {
			s.saveBlob(ctx, t, d, o.Progress)
		}
	}
	return t.close()
}

// savedIndexes writes what says which images there are.
func savedIndexes(ctx context.Context, t *tarWriter, all []saved) error {
	oci, err := savedIndex(all)
	if err != nil {
		return err
	}
	docker, err := savedDocker(ctx, all)
	if err != nil {
		return err
	}
	t.small(layoutFile, []byte(layoutContent))
	t.small(indexFile, oci)
	if docker != nil {
		t.small(dockerManifestFile, docker)
	}
	return nil
}

// shareForReading keeps blobs from being collected. Who may only read the store
// can't lock it, and need not: the worst is an error about a missing blob.
func (s *Store) shareForReading(ctx context.Context) (release func(), err error) {
	release, err = s.share(ctx)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return func() {}, nil
	}
	return release, err
}

// gather reads the manifests of the images, sorted by name so that their order
// on the command line doesn't matter.
func (s *Store) gather(ctx context.Context, images []*Image, want []v1.Platform) ([]saved, error) {
	images = slices.Clone(images)
	slices.SortStableFunc(images, func(x, y *Image) int {
		return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(x.desc.Digest.String(), y.desc.Digest.String()))
	})
	images = slices.CompactFunc(images, func(x, y *Image) bool {
		return x.name == y.name && x.desc.Digest == y.desc.Digest
	})
	trees := map[v1.Hash]*tree{}
	all := make([]saved, len(images))
	for n, img := range images {
		t := trees[img.desc.Digest]
		if t == nil {
			var err error
			if t, err = s.savedTree(ctx, img, want); err != nil {
				return nil, err
			}
			trees[img.desc.Digest] = t
		}
		all[n] = saved{img: img, tree: t}
	}
	return all, nil
}

// savedTree reads the manifests of one image. Of an index what isn't present is
// left out, but something must be; of a manifest all must be there.
func (s *Store) savedTree(ctx context.Context, img *Image, want []v1.Platform) (*tree, error) {
	w := walker{read: s.read, sparse: true}
	if len(want) > 0 {
		all, present, err := img.present(ctx)
		if err != nil {
			return nil, err
		}
		if w.keep, err = choosePresent(all, present, want); err != nil {
			return nil, err
		}
	}
	t, err := walk(ctx, img.desc, w)
	if err != nil {
		return nil, err
	}
	if err := s.whole(t); err != nil {
		return nil, err
	}
	return t, nil
}

// whole drops from t the manifests below an index that lack a blob.
func (s *Store) whole(t *tree) error {
	var missing error
	need := map[v1.Hash]bool{}
	kept, images := t.docs[:0:0], 0
	for n, doc := range t.docs {
		absent := s.absent(doc)
		switch {
		case doc.isIndex():
			for _, d := range doc.children { // what is neither an image nor an index
				need[d.Digest] = !isDocument(d.MediaType) && s.has(d)
			}
		case absent == nil:
			images++
		case n == 0:
			return absent
		default:
			missing = absent
			continue
		}
		kept = append(kept, doc)
		for _, d := range doc.all()[len(doc.children):] {
			need[d.Digest] = true
		}
	}
	if images == 0 && len(t.docs) > 0 {
		return cmp.Or(missing, error(&MissingError{Digest: t.docs[0].desc.Digest}))
	}
	t.docs = kept
	t.blobs = slices.DeleteFunc(t.blobs, func(d v1.Descriptor) bool { return !need[d.Digest] })
	return nil
}

// absent is the error for the first config or layer that the store doesn't have.
func (s *Store) absent(doc *document) error {
	for _, d := range doc.all()[len(doc.children):] {
		if !s.has(d) {
			return &MissingError{Digest: d.Digest}
		}
	}
	return nil
}

// savedBlobs is listBlobs of what the store has, all of it.
func (s *Store) savedBlobs(all []saved) ([]v1.Descriptor, error) {
	blobs := listBlobs(all)
	for _, d := range blobs {
		if !s.has(d) {
			return nil, &MissingError{Digest: d.Digest}
		}
	}
	return blobs, nil
}

// listBlobs lists every blob once: manifests first, so that who reads the
// archive as a stream knows early what comes; each group sorted by digest.
func listBlobs(all []saved) []v1.Descriptor {
	seen := map[v1.Hash]bool{}
	var docs, blobs []v1.Descriptor
	add := func(list *[]v1.Descriptor, d v1.Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			*list = append(*list, d)
		}
	}
	for _, sv := range all {
		for _, doc := range sv.tree.docs {
			add(&docs, doc.desc)
		}
	}
	for _, sv := range all {
		for _, d := range sv.tree.blobs {
			add(&blobs, d)
		}
	}
	for _, list := range [][]v1.Descriptor{docs, blobs} {
		slices.SortFunc(list, func(x, y v1.Descriptor) int { return strings.Compare(x.Digest.String(), y.Digest.String()) })
	}
	return append(docs, blobs...)
}

// savedIndex is the archive's index.json: an entry per name.
func savedIndex(all []saved) ([]byte, error) {
	x := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, sv := range all {
		d := v1.Descriptor{MediaType: sv.img.desc.MediaType, Size: sv.img.desc.Size, Digest: sv.img.desc.Digest, ArtifactType: sv.img.desc.ArtifactType}
		if len(sv.tree.docs) > 0 {
			d.MediaType = sv.tree.docs[0].desc.MediaType
		}
		if sv.img.name != "" {
			d.Annotations = map[string]string{nameAnnotation: sv.img.name, refNameAnnotation: sv.img.name}
		} else if sv.img.refName != "" {
			d.Annotations = refNamed(sv.img.refName)
		}
		x.Manifests = append(x.Manifests, d)
	}
	return json.Marshal(x)
}

// savedDocker is docker's manifest.json, nil if nothing in the archive is an
// image that docker knows.
func savedDocker(ctx context.Context, all []saved) ([]byte, error) {
	var items []*dockerItem
	byConfig := map[string]*dockerItem{}
	for _, sv := range all {
		doc := sv.forDocker(ctx)
		if doc == nil {
			continue
		}
		config := archivePath(doc.config.Digest)
		it := byConfig[config]
		if it == nil {
			it = &dockerItem{Config: config, Layers: []string{}}
			for _, d := range doc.layers {
				it.Layers = append(it.Layers, archivePath(d.Digest))
			}
			byConfig[config] = it
			items = append(items, it)
		}
		if tag := dockerTag(cmp.Or(sv.img.name, refNamed(sv.img.refName)[nameAnnotation])); tag != "" && !slices.Contains(it.RepoTags, tag) {
			it.RepoTags = append(it.RepoTags, tag)
		}
	}
	if items == nil {
		return nil, nil
	}
	return json.Marshal(items)
}

// forDocker is the manifest that manifest.json describes: the one for linux/amd64
// if it is there, else the first; nil for an artifact.
func (sv *saved) forDocker(ctx context.Context) *document {
	var images []*document
	var platforms []v1.Descriptor
	for _, doc := range sv.tree.docs {
		if doc.config == nil || !doc.config.MediaType.IsConfig() || platform.IsAttestation(doc.desc) {
			continue
		}
		d := doc.desc
		if sv.img.store != nil {
			d, _ = withPlatformOf(ctx, sv.img.store.read, doc) // a config that can't be read tells none
		}
		images, platforms = append(images, doc), append(platforms, d)
	}
	if best, err := platform.Select(platforms, v1.Platform{OS: "linux", Architecture: "amd64"}); err == nil {
		i := slices.IndexFunc(images, func(doc *document) bool { return doc.desc.Digest == best.Digest })
		return images[i]
	}
	if len(images) == 0 {
		return nil
	}
	return images[0]
}

// dockerTag is a name for manifest.json, "" for what is no tag. It stays whole, as
// podman writes it: docker shortens it again, but podman would take alpine:3.20
// for localhost/alpine:3.20.
func dockerTag(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	if _, ok := named.(reference.Tagged); !ok {
		return ""
	}
	return named.String()
}

func archivePath(h v1.Hash) string { return fmt.Sprintf("%s/%s/%s", blobsDir, h.Algorithm, h.Hex) }

// saveBlob writes one blob into the archive.
func (s *Store) saveBlob(ctx context.Context, t *tarWriter, d v1.Descriptor, p Progress) {
	f, err := s.openBlob(d.Digest)
	if err != nil {
		t.err = err
		return
	}
	defer f.Close()
	t.header(archivePath(d.Digest), tar.TypeReg, d.Size)
	t.content(ctx, f, d, p)
}
