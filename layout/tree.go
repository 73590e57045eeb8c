package layout

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/platform"
)

// Bounds on what others wrote.
const (
	maxManifest  = 4 << 20   // bytes of one manifest or index, as registries have it
	maxConfig    = 16 << 20  // bytes of one image config
	maxDocuments = 128 << 20 // bytes of all manifests and indexes of one image
	maxBlobs     = 20_000    // blobs and manifests of one image
	maxDepth     = 6         // indexes within indexes
	maxBlobSize  = 1 << 42   // bytes of one layer: 4 TiB
)

const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// reader reads a whole manifest, index or config, of at most limit bytes, and
// verifies it. What isn't there is an fs.ErrNotExist.
type reader func(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error)

// document is a manifest or an index.
type document struct {
	desc     v1.Descriptor
	raw      []byte
	children []v1.Descriptor // of an index: manifests and indexes
	config   *v1.Descriptor  // of a manifest
	layers   []v1.Descriptor // of a manifest
}

func (d *document) isIndex() bool { return d.config == nil && d.layers == nil }

// isDocument reports whether blobs of this type have children of their own. A
// child of an index without a type is looked into.
func isDocument(t types.MediaType) bool {
	return t.IsIndex() || t.IsImage() || t == "" || t == types.DockerManifestSchema1 || t == types.DockerManifestSchema1Signed
}

// descriptor is a v1.Descriptor whose digest is read without a parser of its
// own: who collects garbage reads a great many.
type descriptor struct {
	MediaType    types.MediaType   `json:"mediaType"`
	Size         int64             `json:"size"`
	Digest       string            `json:"digest"`
	Data         []byte            `json:"data"`
	URLs         []string          `json:"urls"`
	Annotations  map[string]string `json:"annotations"`
	Platform     *v1.Platform      `json:"platform"`
	ArtifactType string            `json:"artifactType"`
}

// as leaves a digest empty that is none, which checkDescriptor refuses, and a platform
// that says nothing out.
func (d *descriptor) as() v1.Descriptor {
	h, _ := v1.NewHash(d.Digest)
	out := v1.Descriptor{
		MediaType: d.MediaType, Size: d.Size, Digest: h, Data: d.Data, URLs: d.URLs,
		Annotations: d.Annotations, Platform: d.Platform, ArtifactType: d.ArtifactType,
	}
	if p := d.Platform; p != nil && p.OS == "" && p.Architecture == "" {
		out.Platform = nil
	}
	return out
}

// asDescriptors keeps apart what is empty and what isn't there.
func asDescriptors(list []descriptor) []v1.Descriptor {
	if list == nil {
		return nil
	}
	all := make([]v1.Descriptor, len(list))
	for i := range list {
		all[i] = list[i].as()
	}
	return all
}

// parseDocument reads a manifest or an index and checks every descriptor in it.
func parseDocument(d v1.Descriptor, raw []byte) (*document, error) {
	var in struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     []descriptor    `json:"manifests"`
		Config        *descriptor     `json:"config"`
		Layers        []descriptor    `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	what := "manifest " + d.Digest.String()
	if err := parseJSON(raw, &in); err != nil {
		return nil, &InvalidError{What: what, Reason: "not a manifest", Err: err}
	}
	if in.SchemaVersion == 1 || in.FSLayers != nil {
		return nil, invalid(what, "docker's manifest schema 1 is out of use and not supported")
	}
	// A document that is both can be read as one by one tool and as the other by the next.
	if in.Manifests != nil && (in.Config != nil || in.Layers != nil) {
		return nil, invalid(what, "both an index and a manifest")
	}
	doc := &document{desc: d, raw: raw, layers: asDescriptors(in.Layers), children: asDescriptors(in.Manifests)}
	if in.Config != nil {
		config := in.Config.as()
		doc.config = &config
	}
	if doc.desc.MediaType == "" {
		doc.desc.MediaType = in.MediaType
	}
	if doc.desc.MediaType == "" {
		doc.desc.MediaType = guessType(doc)
	}
	if t := doc.desc.MediaType; in.MediaType != "" && in.MediaType.IsIndex() != t.IsIndex() || t.IsIndex() != doc.isIndex() {
		return nil, invalid(what, "announced as %q, but is something else", t)
	}
	if !doc.isIndex() && doc.config == nil {
		return nil, invalid(what, "no config")
	}
	return doc, doc.check(what)
}

func guessType(doc *document) types.MediaType {
	if doc.isIndex() {
		return types.OCIImageIndex
	}
	return types.OCIManifestSchema1
}

func (d *document) check(what string) error {
	all := d.all()
	if len(all) > maxBlobs {
		return invalid(what, "more than %d blobs", maxBlobs)
	}
	for _, c := range all {
		if err := checkDescriptor(c, what); err != nil {
			return err
		}
	}
	return nil
}

func checkDescriptor(d v1.Descriptor, what string) error {
	if d.Digest.Hex == "" {
		return invalid(what, "a descriptor without a valid digest")
	}
	empty := d.Size == 0 && d.Digest.Hex == emptySHA256 // artifacts may hold an empty file
	if d.Size < 0 || d.Size == 0 && !empty || d.Size > maxBlobSize {
		return invalid(what, "blob %s cannot have %d bytes", d.Digest, d.Size)
	}
	return nil
}

// all are the descriptors in the document.
func (d *document) all() []v1.Descriptor {
	all := append([]v1.Descriptor{}, d.children...)
	if d.config != nil {
		all = append(all, *d.config)
	}
	return append(all, d.layers...)
}

// tree is what an entry reaches for.
type tree struct {
	docs  []*document     // parents before children
	blobs []v1.Descriptor // configs and layers, each once
}

// walker collects a tree.
type walker struct {
	read   reader
	keep   map[v1.Hash]bool // manifests below an index to go into; nil: all
	sparse bool             // children of an index may be missing
	seen   map[v1.Hash]int64
	bytes  int64
	tree   tree
}

// walk reads all manifests below root. A missing root is always an error. A root
// of a type nobody knows is a blob without children.
func walk(ctx context.Context, root v1.Descriptor, w walker) (*tree, error) {
	w.seen = map[v1.Hash]int64{}
	if !isDocument(root.MediaType) {
		return &w.tree, w.blob(root)
	}
	if err := w.document(ctx, root, 0); err != nil {
		return nil, err
	}
	return &w.tree, nil
}

func (w *walker) document(ctx context.Context, d v1.Descriptor, depth int) error {
	if depth > maxDepth {
		return invalid("manifest "+d.Digest.String(), "more than %d indexes within each other", maxDepth)
	}
	if again, err := w.visit(d); again || err != nil {
		return err
	}
	doc, err := readDocument(ctx, w.read, d)
	if w.sparse && depth > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if w.bytes += int64(len(doc.raw)); w.bytes > maxDocuments {
		return invalid("manifest "+d.Digest.String(), "more than %d bytes of manifests below one image", maxDocuments)
	}
	w.tree.docs = append(w.tree.docs, doc)
	for _, c := range doc.children {
		switch {
		case !isDocument(c.MediaType):
			err = w.blob(c)
		case w.keep == nil || c.MediaType.IsIndex() || w.keep[c.Digest]:
			err = w.document(ctx, c, depth+1)
		}
		if err != nil {
			return err
		}
	}
	for _, b := range doc.all()[len(doc.children):] {
		if err := w.blob(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) blob(d v1.Descriptor) error {
	again, err := w.visit(d)
	if !again && err == nil {
		w.tree.blobs = append(w.tree.blobs, d)
	}
	return err
}

// visit notes a digest, and finds contradictions about its size.
func (w *walker) visit(d v1.Descriptor) (again bool, err error) {
	size, again := w.seen[d.Digest]
	if again && size != d.Size {
		return true, invalid("blob "+d.Digest.String(), "announced with both %d and %d bytes", size, d.Size)
	}
	w.seen[d.Digest] = d.Size
	if len(w.seen) > maxBlobs {
		return again, invalid("blob "+d.Digest.String(), "one of more than %d blobs of one image", maxBlobs)
	}
	return again, nil
}

func readDocument(ctx context.Context, read reader, d v1.Descriptor) (*document, error) {
	raw, err := read(ctx, d, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseDocument(d, raw)
}

// leaves are the images below root, or root itself, without attestations. A
// platform that the index doesn't state is read from the config; one that isn't
// known there either stays nil.
func leaves(ctx context.Context, read reader, root v1.Descriptor, sparse bool) ([]v1.Descriptor, error) {
	t, err := walk(ctx, root, walker{read: read, sparse: sparse, keep: map[v1.Hash]bool{}})
	if err != nil {
		return nil, err
	}
	return t.leaves(ctx, read, sparse)
}

// leaves are those of the tree's root. What the tree has read is not read again.
func (t *tree) leaves(ctx context.Context, read reader, sparse bool) ([]v1.Descriptor, error) {
	if len(t.docs) == 0 {
		return nil, nil
	}
	if doc := t.docs[0]; !doc.isIndex() {
		leaf, err := withPlatformOf(ctx, read, doc)
		return []v1.Descriptor{leaf}, err
	}
	var found []v1.Descriptor
	read = bounded(read)
	for _, doc := range t.docs {
		for _, c := range doc.children {
			if c.MediaType.IsIndex() || !isDocument(c.MediaType) || platform.IsAttestation(c) {
				continue
			}
			leaf, err := withPlatform(ctx, read, c)
			if err != nil && !(sparse && errors.Is(err, fs.ErrNotExist)) {
				return nil, err
			}
			found = append(found, leaf)
		}
	}
	return found, nil
}

// withPlatform fills in d's platform from its config.
func withPlatform(ctx context.Context, read reader, d v1.Descriptor) (v1.Descriptor, error) {
	if d.Platform != nil {
		return d, nil
	}
	doc, err := readDocument(ctx, read, d)
	if err != nil {
		return d, err
	}
	leaf, err := withPlatformOf(ctx, read, doc)
	d.Platform = leaf.Platform
	return d, err
}

// withPlatformOf is withPlatform of a manifest that was read.
func withPlatformOf(ctx context.Context, read reader, doc *document) (v1.Descriptor, error) {
	d := doc.desc
	if d.Platform != nil || doc.config == nil || !doc.config.MediaType.IsConfig() {
		return d, nil
	}
	raw, err := read(ctx, *doc.config, maxConfig)
	if err != nil {
		return d, err
	}
	config, err := parseConfig(*doc.config, raw)
	if err == nil {
		d.Platform = configPlatform(config)
	}
	return d, err
}

// configPlatform is nil for a config that names no architecture: artifacts have such.
// What names one alone is for linux, as docker has it.
func configPlatform(c *v1.ConfigFile) *v1.Platform {
	if c.Architecture == "" {
		return nil
	}
	p := platform.Normalize(v1.Platform{
		OS: c.OS, Architecture: c.Architecture, Variant: c.Variant,
		OSVersion: c.OSVersion, OSFeatures: c.OSFeatures,
	})
	return &p
}

func parseConfig(d v1.Descriptor, raw []byte) (*v1.ConfigFile, error) {
	var c v1.ConfigFile
	if err := parseJSON(raw, &c); err != nil {
		return nil, &InvalidError{What: "config " + d.Digest.String(), Reason: "not an image config", Err: err}
	}
	return &c, nil
}

// selectPresent is platform.Select among those of all that are present. An older variant
// is no answer where there is a better one that is not here: that is what a registry
// would give.
func selectPresent(all, present []v1.Descriptor, want v1.Platform) (v1.Descriptor, error) {
	best, err := platform.Select(all, want)
	if err != nil {
		return platform.Select(present, want)
	}
	d, err := platform.Select(present, want)
	if err != nil {
		return d, err
	}
	if platform.Normalize(*d.Platform).Variant != platform.Normalize(*best.Platform).Variant {
		return v1.Descriptor{}, noneOf(want, present)
	}
	return d, nil
}

// choose returns the images among the leaves that serve the platforms wanted,
// by digest. Every platform must be served. A single image that states no
// platform serves all.
func choose(from []v1.Descriptor, want []v1.Platform) (map[v1.Hash]bool, error) {
	return choosePresent(from, from, want)
}

// choosePresent is choose where only some of the leaves are at hand.
func choosePresent(all, from []v1.Descriptor, want []v1.Platform) (map[v1.Hash]bool, error) {
	keep := map[v1.Hash]bool{}
	if len(from) == 1 && from[0].Platform == nil {
		keep[from[0].Digest] = true
		return keep, nil
	}
	for _, p := range want {
		d, err := selectPresent(all, from, p)
		if err != nil {
			return nil, err
		}
		keep[d.Digest] = true
	}
	return keep, nil
}
