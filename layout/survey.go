package layout

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/platform"
)

// survey finds out which blobs the images of a store need, and reads their
// manifests and configs on the way. Unlike [walk] it goes on behind what is
// broken, to find all of it.
type survey struct {
	store    *Store
	roots    []*Image
	drafts   map[*Image]map[v1.Hash]bool // no blob below has to be there, nor these manifests
	nodes    map[v1.Hash]*node
	needs    map[v1.Hash]*need
	reached  map[v1.Hash]bool // all that a collector would keep
	problems []Problem
}

// node is a manifest or an index.
type node struct {
	desc    v1.Descriptor
	doc     *document // nil if it can't be used
	err     error     // why, or what is wrong with the config
	diffIDs []v1.Hash // of a manifest with an image config
}

// need is a blob that has to be there.
type need struct {
	desc   v1.Descriptor
	part   string
	diffID v1.Hash // of a layer, if it is known
	users  []user
}

// user is an image, and the manifest below it that has the need.
type user struct {
	root     *Image
	via      v1.Hash
	platform string // as the index states it; "" for the image as a whole
}

func wholeOf(root *Image) user { return user{root: root, via: root.desc.Digest} }

func platformOf(root *Image, d v1.Descriptor) user {
	who := user{root: root, via: d.Digest}
	if d.Platform != nil && d.Digest != root.desc.Digest {
		who.platform = platform.Format(*d.Platform)
	}
	return who
}

func newSurvey(s *Store) *survey {
	return &survey{
		store: s, drafts: map[*Image]map[v1.Hash]bool{}, nodes: map[v1.Hash]*node{}, needs: map[v1.Hash]*need{}, reached: map[v1.Hash]bool{},
	}
}

// explore reads all that is below roots, level by level.
func (y *survey) explore(ctx context.Context, roots []*Image) error {
	y.roots = roots
	var level []v1.Descriptor
	for _, r := range roots {
		level = append(level, r.desc)
	}
	for depth := 0; len(level) > 0 && depth <= maxDepth; depth++ {
		fresh := y.fresh(level)
		if err := each(ctx, len(fresh), func(ctx context.Context, i int) error {
			y.store.loadNode(ctx, fresh[i])
			return nil
		}); err != nil {
			return err
		}
		level = nil
		for _, n := range fresh {
			if n.doc == nil {
				continue
			}
			level = append(level, n.doc.children...)
			for _, d := range n.doc.all() {
				y.reached[d.Digest] = true
			}
		}
	}
	return nil
}

// fresh makes nodes for those documents that have none.
func (y *survey) fresh(level []v1.Descriptor) []*node {
	var fresh []*node
	for _, d := range level {
		y.reached[d.Digest] = true
		if y.nodes[d.Digest] == nil && isDocument(d.MediaType) {
			n := &node{desc: d}
			y.nodes[d.Digest] = n
			fresh = append(fresh, n)
		}
	}
	return fresh
}

// loadNode reads a manifest and its config.
func (s *Store) loadNode(ctx context.Context, n *node) {
	n.doc, n.err = readDocument(ctx, s.read, n.desc)
	if n.err != nil || n.doc.config == nil || !n.doc.config.MediaType.IsConfig() {
		return
	}
	raw, err := s.read(ctx, *n.doc.config, maxConfig)
	if err != nil {
		return // hashing it will tell
	}
	config, err := parseConfig(*n.doc.config, raw)
	if err == nil && len(config.RootFS.DiffIDs) != len(n.doc.layers) {
		err = invalid("config "+n.doc.config.Digest.String(), "has %d diff IDs for %d layers", len(config.RootFS.DiffIDs), len(n.doc.layers))
	}
	if err != nil {
		n.err = err
		return
	}
	n.diffIDs = config.RootFS.DiffIDs
}

// judge decides for every image what of it has to be there.
func (y *survey) judge() {
	for _, root := range y.roots {
		y.judgeRoot(root)
	}
}

func (y *survey) judgeRoot(root *Image) {
	n := y.nodes[root.desc.Digest]
	if n == nil { // of a type nobody knows: a blob by itself
		y.need(root.desc, "blob", wholeOf(root))
		return
	}
	y.need(root.desc, partOf(n), wholeOf(root))
	switch {
	case n.err != nil && n.doc == nil:
		y.unusable(n, wholeOf(root))
	case y.drafts[root] != nil:
		for _, d := range n.doc.children {
			if !y.drafts[root][d.Digest] {
				y.need(d, "manifest", platformOf(root, d))
			}
		}
	case n.doc.isIndex():
		y.judgeIndex(root, n)
	default:
		y.wanted(n, wholeOf(root))
	}
}

func partOf(n *node) string {
	if n.desc.MediaType.IsIndex() || n.doc != nil && n.doc.isIndex() {
		return "index"
	}
	return "manifest"
}

// judgeIndex wants every platform whole of which there is anything, and at
// least one.
func (y *survey) judgeIndex(root *Image, n *node) {
	leaves := y.below(root, n, map[v1.Hash]bool{})
	shared := map[v1.Hash]bool{}
	images, here := 0, 0
	for _, l := range leaves {
		if l.doc != nil && y.complete(l) {
			for _, d := range l.doc.all() {
				shared[d.Digest] = true
			}
		}
	}
	for _, l := range leaves {
		attestation := platform.IsAttestation(l.desc)
		if !attestation {
			images++
		}
		if !y.present(l, shared) {
			continue
		}
		if !attestation {
			here++
		}
		who := platformOf(root, l.desc)
		y.need(l.desc, "manifest", who)
		if l.doc == nil {
			y.unusable(l, who)
		} else {
			y.wanted(l, who)
		}
	}
	if images > 0 && here == 0 && y.nothingElse(n) {
		y.problem(Problem{
			Kind: Missing, Part: platformsPart, Digest: n.desc.Digest, Size: n.desc.Size, Path: blobPath(n.desc.Digest),
			Images: []Subject{subject(wholeOf(root))},
			Err:    invalid("index "+n.desc.Digest.String(), "none of its %d platforms is here", images),
		})
	}
}

// platformsPart is missing where an index is there and nothing of its images.
const platformsPart = "platforms"

// nothingElse: an index may be over blobs that are no documents.
func (y *survey) nothingElse(n *node) bool {
	return !slices.ContainsFunc(n.doc.children, func(d v1.Descriptor) bool {
		return !isDocument(d.MediaType) && y.store.has(d)
	})
}

// below returns the manifests under an index, at any depth, and wants the
// indexes between that are there.
func (y *survey) below(root *Image, n *node, seen map[v1.Hash]bool) []*node {
	var leaves []*node
	for _, d := range n.doc.children {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		c := y.nodes[d.Digest]
		switch {
		case c == nil && !isDocument(d.MediaType):
			if y.store.exists(d.Digest) {
				y.need(d, "blob", platformOf(root, d))
			}
		case c == nil: // deeper than any tool goes
		case c.doc != nil && c.doc.isIndex():
			y.need(d, "index", platformOf(root, d))
			leaves = append(leaves, y.below(root, c, seen)...)
		default:
			leaf := *c
			leaf.desc = d // with the platform that the index states
			leaves = append(leaves, &leaf)
		}
	}
	return leaves
}

// complete reports whether all of a manifest is there.
func (y *survey) complete(n *node) bool {
	return !slices.ContainsFunc(n.doc.all(), func(d v1.Descriptor) bool { return d.MediaType.IsDistributable() && !y.store.has(d) })
}

// present reports whether a platform counts as one that the store has: as for
// [Image.Select] if its config is there, or else if a layer is that is only its own.
func (y *survey) present(n *node, shared map[v1.Hash]bool) bool {
	if n.doc == nil {
		return !errors.Is(n.err, fs.ErrNotExist)
	}
	if y.complete(n) || n.doc.config != nil && y.store.exists(n.doc.config.Digest) && !shared[n.doc.config.Digest] {
		return true
	}
	return slices.ContainsFunc(n.doc.layers, func(d v1.Descriptor) bool { return !shared[d.Digest] && y.store.exists(d.Digest) })
}

// wanted notes all that a manifest needs.
func (y *survey) wanted(n *node, who user) {
	if n.err != nil {
		y.unusable(n, who)
	}
	if n.doc.config != nil {
		y.need(*n.doc.config, "config", who)
	}
	for i, d := range n.doc.layers {
		// What may not be distributed is often left out, and images work without
		// where it is of no use.
		if !d.MediaType.IsDistributable() && !y.store.exists(d.Digest) {
			continue
		}
		l := y.need(d, "layer", who)
		if i < len(n.diffIDs) {
			l.diffID = n.diffIDs[i]
		}
	}
}

func (y *survey) need(d v1.Descriptor, part string, who user) *need {
	n := y.needs[d.Digest]
	if n == nil {
		n = &need{desc: d, part: part}
		y.needs[d.Digest] = n
	}
	if n.desc.Size != d.Size {
		y.problem(Problem{
			Kind: Invalid, Part: part, Digest: d.Digest, Size: d.Size, Path: blobPath(d.Digest), Images: []Subject{subject(who)},
			Err: invalid(part+" "+d.Digest.String(), "announced with both %d and %d bytes", n.desc.Size, d.Size),
		})
	}
	if len(n.users) == 0 || n.users[len(n.users)-1] != who {
		n.users = append(n.users, who)
	}
	return n
}

// unusable notes a manifest or config that is there, and is what its digest
// says, but can't be understood. What is not there is found by its hash.
func (y *survey) unusable(n *node, who user) {
	var bad *InvalidError
	if !errors.As(n.err, &bad) {
		return
	}
	part, d := partOf(n), n.desc
	if n.doc != nil {
		part, d = "config", *n.doc.config
	}
	i := slices.IndexFunc(y.problems, func(p Problem) bool { return p.Digest == d.Digest && p.Kind == Invalid })
	if i >= 0 {
		y.problems[i].Images = append(y.problems[i].Images, subject(who))
		return
	}
	y.problem(Problem{
		Kind: Invalid, Part: part, Digest: d.Digest, Size: d.Size, Path: blobPath(d.Digest), Images: []Subject{subject(who)}, Err: n.err,
	})
}

func (y *survey) problem(p Problem) { y.problems = append(y.problems, p) }

func subject(who user) Subject {
	return Subject{Name: cmp.Or(who.root.name, who.root.refName), ID: who.root.Entry().desc.Digest, Platform: who.platform}
}

// subjects are the images that need n, each once.
func (n *need) subjects() []Subject {
	var all []Subject
	seen := map[Subject]bool{}
	for _, u := range n.users {
		if s := subject(u); !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}

// exists reports whether there is a file for h, whole or not.
func (s *Store) exists(h v1.Hash) bool {
	_, err := os.Lstat(s.BlobPath(h))
	return !errors.Is(err, fs.ErrNotExist)
}

func blobPath(h v1.Hash) string { return strings.Join([]string{blobsDir, h.Algorithm, h.Hex}, "/") }
