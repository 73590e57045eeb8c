package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// rebuildIndex makes index.json anew if it is none: the old one is put aside,
// with what can be read of it kept, and the images among the blobs that it has
// lost get entries without a name.
func (r *repairer) rebuildIndex(ctx context.Context) error {
	raw, err := r.store.readIndexFile()
	if err == nil {
		_, err = parseIndex(raw)
	}
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return nil // what can't be read may be whole
	}
	why := err
	unlock, err := r.store.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	aside, err := r.store.putAside()
	if err != nil {
		return err
	}
	x := &index{top: map[string]json.RawMessage{
		"schemaVersion": json.RawMessage("2"), "mediaType": json.RawMessage(`"application/vnd.oci.image.index.v1+json"`),
	}}
	x.entries = salvage(raw)
	lost, err := r.unclaimed(ctx, x)
	if err != nil {
		return err
	}
	for _, img := range lost {
		if err := x.add(img.desc, img.survey(ctx).annotations()); err != nil {
			return err
		}
	}
	if raw, err = x.encode(); err != nil {
		return err
	}
	if err := r.store.replaceIndex(raw); err != nil {
		return err
	}
	r.told(Mended{Kind: Rebuilt, Part: "file", Path: aside, Err: why})
	for _, img := range lost {
		r.told(Mended{Kind: Regained, Part: "image", Digest: img.desc.Digest, Images: []Subject{{ID: img.desc.Digest}}})
	}
	return nil
}

// putAside gives index.json a second name, which is returned; "" if there is none.
func (s *Store) putAside() (name string, err error) {
	name = brokenIndex + time.Now().UTC().Format("20060102T150405.000Z")
	from, to := s.path(indexFile), s.path(name)
	if err = os.Link(from, to); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil { // no hard links here
		err = os.Rename(from, to)
	}
	return name, err
}

// salvage returns what looks like an entry in what is left of an index.json.
func salvage(raw []byte) []*entry {
	var found []*entry
	for i := bytes.IndexByte(raw, '{'); i >= 0 && i < len(raw); {
		e, length := salvageOne(raw[i:])
		if e != nil {
			found = append(found, e)
		}
		i += length
		next := bytes.IndexByte(raw[i:], '{')
		if next < 0 {
			break
		}
		i += next
	}
	return found
}

// salvageOne reads an entry that raw begins with, and tells how long it is; 1 if
// there is none.
func salvageOne(raw []byte) (*entry, int) {
	d := json.NewDecoder(bytes.NewReader(raw))
	e := &entry{}
	if d.Decode(&e.raw) != nil || json.Unmarshal(e.raw, &e.target) != nil {
		return nil, 1
	}
	h, err := v1.NewHash(e.target.Digest)
	if err != nil || checkDescriptor(v1.Descriptor{Digest: h, Size: e.target.Size}, indexFile) != nil {
		return nil, 1
	}
	e.digest, e.known = e.target.Digest, e.target.Annotations
	return e, int(d.InputOffset())
}

// unclaimed returns the whole images among the blobs that no entry of x, and no
// other of them, reaches.
func (r *repairer) unclaimed(ctx context.Context, x *index) ([]*Image, error) {
	files, err := r.store.blobFiles()
	if err != nil {
		return nil, err
	}
	found := make([]*document, len(files))
	err = each(ctx, len(files), func(ctx context.Context, i int) error {
		if f := files[i]; r.store.looksLikeDocument(f.hash, f.size) {
			found[i], _ = readDocument(ctx, r.store.read, v1.Descriptor{Digest: f.hash, Size: f.size}) // what is none is none
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	claimed := map[string]bool{}
	for _, e := range x.entries {
		claimed[e.digest] = true
	}
	for _, doc := range found {
		if doc == nil {
			continue
		}
		for _, c := range doc.children {
			claimed[c.Digest.String()] = true
		}
	}
	var lost []*Image
	for _, doc := range found {
		if doc == nil || claimed[doc.desc.Digest.String()] {
			continue
		}
		img := &Image{store: r.store, desc: doc.desc, facts: &remembered{}}
		if ok, err := r.isWhole(ctx, img); err != nil {
			return nil, err
		} else if ok {
			lost = append(lost, img)
		}
	}
	return lost, nil
}

// isWhole reports whether everything that an image needs is there, at its size.
func (r *repairer) isWhole(ctx context.Context, img *Image) (bool, error) {
	y := newSurvey(r.store)
	if err := y.explore(ctx, []*Image{img}); err != nil {
		return false, err
	}
	y.judge()
	for _, n := range y.needs {
		if !r.store.has(n.desc) {
			return false, nil
		}
	}
	return len(y.problems) == 0, nil
}
