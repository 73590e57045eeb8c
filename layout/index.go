package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The annotations of an entry of index.json that mean something to us.
const (
	nameAnnotation    = "io.containerd.image.name"          // the full normalised name
	refNameAnnotation = "org.opencontainers.image.ref.name" // the same here; a bare tag where others wrote it
	createdAnnotation = "org.opencontainers.image.created"  // from the config, RFC 3339
	sizeAnnotation    = "com.github.wherry-oci.size"        // see Image.Size
	taggedAnnotation  = "com.github.wherry-oci.tagged"      // when the entry got its name, RFC 3339
	draftAnnotation   = "com.github.wherry-oci.draft"       // the entry is no image but the Draft of this full name
	membersAnnotation = "com.github.wherry-oci.members"     // of a Draft: where its manifests come from, JSON
)

// maxIndex bounds index.json: some 200,000 names.
const maxIndex = 128 << 20

// listed is an entry as List needs it.
type listed struct {
	MediaType    types.MediaType `json:"mediaType"`
	Size         int64           `json:"size"`
	Digest       string          `json:"digest"`
	Platform     *v1.Platform    `json:"platform"`
	ArtifactType string          `json:"artifactType"`
	Annotations  known           `json:"annotations"`
}

// known are the annotations that mean something to us. Maps for all of them
// would cost more than the rest of reading index.json.
type known struct {
	Name    string `json:"io.containerd.image.name"`
	RefName string `json:"org.opencontainers.image.ref.name"`
	Created string `json:"org.opencontainers.image.created"`
	Size    string `json:"com.github.wherry-oci.size"`
	Tagged  string `json:"com.github.wherry-oci.tagged"`
	Draft   string `json:"com.github.wherry-oci.draft"`
	Members string `json:"com.github.wherry-oci.members"`
}

// readIndex returns index.json's entries for reading.
func (s *Store) readIndex() ([]listed, error) {
	raw, err := s.readIndexFile()
	if err != nil {
		return nil, err
	}
	var doc struct {
		Manifests []listed `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, &InvalidError{What: indexFile, Reason: "not an image index", Err: err}
	}
	return doc.Manifests, nil
}

func (s *Store) readIndexFile() ([]byte, error) {
	f, err := os.Open(s.path(indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid(indexFile, "the store has none")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, maxIndex, indexFile)
}

// readBounded reads r to its end, which must come within limit bytes.
func readBounded(r io.Reader, limit int64, what string) ([]byte, error) {
	var b bytes.Buffer
	if f, ok := r.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Size() <= limit {
			b.Grow(int(fi.Size()) + bytes.MinRead)
		}
	}
	if _, err := b.ReadFrom(io.LimitReader(r, limit+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, invalid(what, "larger than %d bytes", limit)
	}
	return b.Bytes(), nil
}

// index is index.json for changing. What others wrote into it and we don't know stays.
type index struct {
	top     map[string]json.RawMessage
	entries []*entry
}

// entry is one element of index.json's manifests.
type entry struct {
	digest string
	known  known
	raw    json.RawMessage
	target listed // what it points at; its annotations are in known
}

// listing is the entry as List needs it.
func (e *entry) listing() *listed {
	l := e.target
	l.Annotations = e.known
	return &l
}

func parseIndex(raw []byte) (*index, error) {
	x := &index{}
	var list []json.RawMessage
	err := json.Unmarshal(raw, &x.top)
	if err == nil && x.top["manifests"] != nil {
		err = json.Unmarshal(x.top["manifests"], &list)
	}
	if err == nil && x.top == nil {
		err = errors.New("it is null")
	}
	for _, r := range list {
		if err != nil {
			break
		}
		e := &entry{raw: r}
		err = json.Unmarshal(r, &e.target)
		e.digest, e.known = e.target.Digest, e.target.Annotations
		x.entries = append(x.entries, e)
	}
	if err != nil {
		return nil, &InvalidError{What: indexFile, Reason: "not an image index", Err: err}
	}
	return x, nil
}

// encode puts index.json together from its parts, each of which is valid JSON:
// to have it all checked and compacted again would take longer than the rest.
func (x *index) encode() ([]byte, error) {
	var b bytes.Buffer
	separator := byte('{')
	x.top["manifests"] = nil // there must be some
	for _, key := range slices.Sorted(maps.Keys(x.top)) {
		k, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		b.WriteByte(separator)
		separator = ','
		b.Write(k)
		b.WriteByte(':')
		if key != "manifests" {
			b.Write(x.top[key])
			continue
		}
		b.WriteByte('[')
		for i, e := range x.entries {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(e.raw)
		}
		b.WriteByte(']')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// newEntry describes d, which must carry no annotations but those it is to have.
func newEntry(d v1.Descriptor) (*entry, error) {
	raw, err := json.Marshal(d)
	target := listed{
		MediaType: d.MediaType, Size: d.Size, Digest: d.Digest.String(), Platform: d.Platform, ArtifactType: d.ArtifactType,
	}
	return &entry{digest: target.Digest, known: knownOf(d.Annotations), raw: raw, target: target}, err
}

func knownOf(a map[string]string) known {
	return known{
		Name: a[nameAnnotation], RefName: a[refNameAnnotation], Created: a[createdAnnotation],
		Size: a[sizeAnnotation], Tagged: a[taggedAnnotation], Draft: a[draftAnnotation], Members: a[membersAnnotation],
	}
}

// annotate sets the entry's annotations, and drops those whose value is empty.
// It reports whether anything changed.
func (e *entry) annotate(set map[string]string) (changed bool, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(e.raw, &fields); err != nil {
		return false, err
	}
	annotations := map[string]string{}
	if fields["annotations"] != nil {
		if err := json.Unmarshal(fields["annotations"], &annotations); err != nil {
			return false, err
		}
	}
	was := maps.Clone(annotations)
	if annotations == nil { // they were null
		annotations = map[string]string{}
	}
	for k, v := range set {
		if annotations[k] = v; v == "" {
			delete(annotations, k)
		}
	}
	if maps.Equal(was, annotations) {
		return false, nil
	}
	delete(fields, "annotations")
	if len(annotations) > 0 {
		if fields["annotations"], err = json.Marshal(annotations); err != nil {
			return false, err
		}
	}
	e.known = knownOf(annotations)
	e.raw, err = json.Marshal(fields)
	return true, err
}

// name is the entry's full normalised name, "" if it has none.
func (e *entry) name() string {
	name, _ := entryName(e.known.Name, e.known.RefName)
	return name
}

// point makes name point at d. The entry that had the name loses it, and stays
// as an untagged one unless its digest is named otherwise.
func (x *index) point(d v1.Descriptor, name string, now time.Time) (changed bool, err error) {
	digest := d.Digest.String()
	for _, e := range slices.Clone(x.entries) {
		if e.name() != name || name == "" {
			continue
		}
		if e.digest == digest {
			return false, nil
		}
		if err := x.unname(e); err != nil {
			return false, err
		}
	}
	same := x.of(digest)
	if name == "" {
		if len(same) > 0 {
			return false, nil
		}
		return true, x.add(d, nil)
	}
	set := map[string]string{
		nameAnnotation: name, refNameAnnotation: name,
		taggedAnnotation: now.UTC().Format(time.RFC3339Nano),
	}
	for _, e := range same { // an untagged entry of this very image gets the name
		if e.known.Name == "" && e.known.RefName == "" {
			return e.annotate(set)
		}
	}
	return true, x.add(d, set)
}

func (x *index) add(d v1.Descriptor, annotations map[string]string) error {
	e, err := newEntry(v1.Descriptor{
		MediaType: d.MediaType, Size: d.Size, Digest: d.Digest,
		ArtifactType: d.ArtifactType, Platform: d.Platform, Annotations: annotations,
	})
	x.entries = append(x.entries, e)
	return err
}

// of returns the entries of one digest, without drafts.
func (x *index) of(digest string) []*entry {
	var same []*entry
	for _, e := range x.entries {
		if e.digest == digest && e.known.Draft == "" {
			same = append(same, e)
		}
	}
	return same
}

// unname takes e's name away, and e itself if its digest has another entry.
func (x *index) unname(e *entry) error {
	if len(x.of(e.digest)) > 1 {
		x.drop(e)
		return nil
	}
	_, err := e.annotate(map[string]string{nameAnnotation: "", refNameAnnotation: "", taggedAnnotation: ""})
	return err
}

func (x *index) drop(e *entry) {
	x.entries = slices.DeleteFunc(x.entries, func(o *entry) bool { return o == e })
}

// edit changes index.json under its lock: read, change, write whole. change
// reports whether there is anything to write.
func (s *Store) edit(ctx context.Context, change func(*index) (bool, error)) error {
	unlock, err := s.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	raw, err := s.readIndexFile()
	if err != nil {
		return err
	}
	x, err := parseIndex(raw)
	if err != nil {
		return err
	}
	changed, err := change(x)
	if err != nil || !changed {
		return err
	}
	if raw, err = x.encode(); err != nil {
		return err
	}
	if len(raw) > maxIndex {
		return invalid(indexFile, "would be larger than %d bytes", maxIndex)
	}
	return s.replaceIndex(raw)
}

// replaceIndex is called under the index lock, so its temporary file needs no
// name of its own; one that a crash left behind is overwritten.
func (s *Store) replaceIndex(raw []byte) (err error) {
	tmp := s.path("." + indexFile + ".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	_, err = f.Write(raw)
	if err == nil {
		err = syncData(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp, s.path(indexFile)); err != nil {
		return err
	}
	return syncDir(s.dir)
}
