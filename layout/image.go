package layout

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/platform"
)

// Image is one entry of index.json, or a manifest below one. It points at an
// image manifest or at an index, and is a [Source] of what the store has of it.
//
// An Image is what the store was like when it was looked up; its blobs may be
// gone by the time they are read, if somebody removed it.
type Image struct {
	store   *Store
	desc    v1.Descriptor
	name    string
	refName string
	facts   *remembered
	tagged  time.Time
	entry   *Image // the entry it is below of; nil for an entry
}

// List returns every entry in index.json's order. It reads nothing else.
// Entries whose digest is of no known kind are left out, and drafts.
func (s *Store) List() ([]*Image, error) {
	entries, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	images := make([]*Image, 0, len(entries))
	for i := range entries {
		if img := s.image(&entries[i]); img != nil && entries[i].Annotations.Draft == "" {
			images = append(images, img)
		}
	}
	return images, nil
}

func (s *Store) image(e *listed) *Image {
	h, err := v1.NewHash(e.Digest)
	if err != nil {
		return nil
	}
	img := &Image{store: s, facts: &remembered{}, desc: v1.Descriptor{
		MediaType: e.MediaType, Size: e.Size, Digest: h, Platform: e.Platform, ArtifactType: e.ArtifactType,
	}}
	a := &e.Annotations
	img.name, img.refName = entryName(a.Name, a.RefName)
	if n, err := strconv.ParseInt(a.Size, 10, 64); err == nil && n >= 0 {
		img.facts = remember(facts{size: n, created: parseTime(a.Created)})
	}
	img.tagged = parseTime(a.Tagged)
	return img
}

// parseTime returns the zero time for what is none.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Name is the full normalised name, as "docker.io/library/alpine:3.20", or ""
// if the entry has none. A manifest below an index has its entry's name.
func (i *Image) Name() string { return i.name }

// RefName is the entry's org.opencontainers.image.ref.name as it stands in
// index.json: the name again, or a bare tag that another tool wrote, or "".
func (i *Image) RefName() string { return i.refName }

// Unnamed is the same image without a name: what an ID stands for.
func (i *Image) Unnamed() *Image {
	c := *i
	c.name, c.refName = "", ""
	return &c
}

// IsIndex reports whether the image is an index over manifests.
func (i *Image) IsIndex() bool { return i.desc.MediaType.IsIndex() }

// Entry is the entry of index.json that the image is below of, or the image
// itself if it is an entry.
func (i *Image) Entry() *Image {
	if i.entry != nil {
		return i.entry
	}
	return i
}

// Descriptor is that of the manifest or index. Its digest is the image's ID.
func (i *Image) Descriptor() v1.Descriptor { return i.desc }

// Open reads blob d of the store from offset on, unverified. The error is an
// fs.ErrNotExist if the store doesn't have it.
func (i *Image) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	f, err := i.store.openBlob(d.Digest)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Path is the file that holds blob d, if the store has it whole.
func (i *Image) Path(d v1.Descriptor) (string, bool) {
	return i.store.BlobPath(d.Digest), i.store.has(d)
}

// has reports whether the store has blob d, at the right size.
func (s *Store) has(d v1.Descriptor) bool {
	return isFile(s.BlobPath(d.Digest), d.Size)
}

func isFile(name string, size int64) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular() && fi.Size() == size
}

func (s *Store) openBlob(h v1.Hash) (*os.File, error) {
	f, err := os.Open(s.BlobPath(h))
	if os.IsNotExist(err) {
		return nil, &MissingError{Digest: h}
	}
	return f, err
}

// read is the store's [reader].
func (s *Store) read(_ context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	f, err := s.openBlob(d.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readVerified(f, d, limit)
}

// RawManifest is the manifest or index, byte for byte, verified.
func (i *Image) RawManifest() ([]byte, error) {
	return i.store.read(context.Background(), i.desc, maxManifest)
}

// Manifest is the image's manifest. An index has none: see [Image.Select].
func (i *Image) Manifest() (*v1.Manifest, error) {
	var m v1.Manifest
	return &m, i.document(context.Background(), false, &m)
}

// IndexManifest is the index, if the image is one.
func (i *Image) IndexManifest() (*v1.IndexManifest, error) {
	var m v1.IndexManifest
	return &m, i.document(context.Background(), true, &m)
}

// RawConfig is the config of the image's manifest, byte for byte, verified. An
// index has none: see [Image.Select].
func (i *Image) RawConfig() ([]byte, error) {
	return i.rawConfig(context.Background())
}

func (i *Image) rawConfig(ctx context.Context) ([]byte, error) {
	var m v1.Manifest
	if err := i.document(ctx, false, &m); err != nil {
		return nil, err
	}
	return i.store.read(ctx, m.Config, maxConfig)
}

// Config is the parsed config. See [Image.RawConfig].
func (i *Image) Config() (*v1.ConfigFile, error) {
	return i.config(context.Background())
}

func (i *Image) config(ctx context.Context) (*v1.ConfigFile, error) {
	raw, err := i.rawConfig(ctx)
	if err != nil {
		return nil, err
	}
	return parseConfig(v1.Descriptor{Digest: i.desc.Digest}, raw)
}

// Platforms returns the images below an index, or the one image of a manifest,
// in the index's order and without attestations.
func (i *Image) Platforms() ([]PlatformInfo, error) {
	ctx := context.Background()
	return i.platforms(ctx)
}

func (i *Image) platforms(ctx context.Context) ([]PlatformInfo, error) {
	t, err := walk(ctx, i.desc, walker{read: i.store.read, sparse: true})
	if err != nil {
		return nil, err
	}
	found, err := t.leaves(ctx, i.store.read, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // no config: the platform is not known
		return nil, err
	}
	docs := make(map[v1.Hash]*document, len(t.docs))
	for _, doc := range t.docs {
		docs[doc.desc.Digest] = doc
	}
	infos := make([]PlatformInfo, len(found))
	for n, d := range found {
		infos[n] = i.store.platformInfo(d, docs[d.Digest])
	}
	return infos, nil
}

// platformInfo looks at what the store has of the manifest doc, which is nil if
// the store does not have it.
func (s *Store) platformInfo(d v1.Descriptor, doc *document) PlatformInfo {
	info := PlatformInfo{Descriptor: d}
	if d.Platform != nil {
		info.Platform = platform.Normalize(*d.Platform)
	}
	if doc == nil {
		return info
	}
	info.Size, info.Present = d.Size, true
	seen := map[v1.Hash]bool{}
	for _, b := range doc.all() {
		switch {
		case seen[b.Digest]:
		case s.has(b):
			info.Size += b.Size
		default:
			info.Present = false
		}
		seen[b.Digest] = true
	}
	return info
}

// Platforms are those of one image, or why they can't be read.
type Platforms struct {
	Platforms []PlatformInfo
	Err       error
}

// PlatformsOf is [Image.Platforms] of many, in their order, read on all
// processors. The error is ctx's.
func (s *Store) PlatformsOf(ctx context.Context, images []*Image) ([]Platforms, error) {
	all := make([]Platforms, len(images))
	err := each(ctx, len(images), func(ctx context.Context, i int) error {
		all[i].Platforms, all[i].Err = images[i].platforms(ctx)
		return nil
	})
	return all, err
}

// PlatformInfo is one image below an index.
type PlatformInfo struct {
	Descriptor v1.Descriptor // of the manifest
	Platform   v1.Platform   // normalised; the zero Platform if nothing tells it
	Present    bool          // the store has the manifest, the config and every layer
	Size       int64         // bytes of these that the store has
}

// Select returns the manifest below the image that serves p best, if the store has
// it and its config; the image itself if it is a manifest that serves p, or one that
// states no platform. Something worse, of which the store may have more, is not the
// answer. The error is a [*platform.NoMatchError] with the platforms the store does have.
func (i *Image) Select(p v1.Platform) (*Image, error) {
	all, found, err := i.present(context.Background())
	if err != nil {
		return nil, err
	}
	if !i.IsIndex() && len(found) == 1 && found[0].Platform == nil {
		return i, nil
	}
	d, err := selectPresent(all, found, p)
	if err != nil {
		return nil, err
	}
	return i.below(d), nil
}

// Best returns the manifest for this machine's platform, or else the first one
// that the store has. The error is an fs.ErrNotExist if it has none.
func (i *Image) Best() (*Image, error) { return i.best(context.Background()) }

func (i *Image) best(ctx context.Context) (*Image, error) {
	_, found, err := i.present(ctx)
	if err != nil {
		return nil, err
	}
	if d, err := platform.Select(found, platform.Default()); err == nil {
		return i.below(d), nil
	}
	if len(found) == 0 {
		return nil, &MissingError{Digest: i.desc.Digest}
	}
	return i.below(found[0]), nil
}

// present are the images below whose manifest and config the store has, among all.
func (i *Image) present(ctx context.Context) (all, present []v1.Descriptor, err error) {
	all, err = leaves(ctx, i.store.read, i.desc, true)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range all {
		doc, err := readDocument(ctx, i.store.read, d)
		if err == nil && doc.config != nil && i.store.has(*doc.config) {
			present = append(present, d)
		}
	}
	return all, present, nil
}

// Whole reports whether the store has everything below the image, attestations too.
func (i *Image) Whole() (bool, error) {
	_, whole, err := i.store.weigh(context.Background(), i.desc)
	return whole, err
}

// below is the image of d, a manifest below i.
func (i *Image) below(d v1.Descriptor) *Image {
	if d.Digest == i.desc.Digest {
		return i
	}
	if d.MediaType == "" {
		d.MediaType = types.OCIManifestSchema1
	}
	return &Image{
		store: i.store, desc: d, name: i.name, refName: i.refName, tagged: i.tagged,
		facts: &remembered{}, entry: i.Entry(),
	}
}

// document decodes the manifest or index into v.
func (i *Image) document(ctx context.Context, index bool, v any) error {
	doc, err := readDocument(ctx, i.store.read, i.desc)
	if err != nil {
		return err
	}
	if doc.isIndex() != index {
		return invalid("image "+i.desc.Digest.String(), "is of type %q", doc.desc.MediaType)
	}
	return json.Unmarshal(doc.raw, v)
}
