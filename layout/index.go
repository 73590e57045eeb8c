package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
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
)

// maxIndex bounds index.json: some 200,000 names.
const maxIndex = 128 << 20

// listed is an entry as List needs it. Known annotations only: maps would cost
// more than all the rest.
type listed struct {
	MediaType    types.MediaType `json:"mediaType"`
	Size         int64           `json:"size"`
	Digest       string          `json:"digest"`
	Platform     *v1.Platform    `json:"platform"`
	ArtifactType string          `json:"artifactType"`
	Annotations  struct {
		Name    string `json:"io.containerd.image.name"`
		RefName string `json:"org.opencontainers.image.ref.name"`
		Created string `json:"org.opencontainers.image.created"`
		Size    string `json:"com.github.wherry-oci.size"`
		Tagged  string `json:"com.github.wherry-oci.tagged"`
	} `json:"annotations"`
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
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
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
	digest      string
	annotations map[string]string
	raw         json.RawMessage
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
		var e struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		}
		err = json.Unmarshal(r, &e)
		x.entries = append(x.entries, &entry{digest: e.Digest, annotations: e.Annotations, raw: r})
	}
	if err != nil {
		return nil, &InvalidError{What: indexFile, Reason: "not an image index", Err: err}
	}
	return x, nil
}

func (x *index) encode() ([]byte, error) {
	list := make([]json.RawMessage, len(x.entries))
	for i, e := range x.entries {
		list[i] = e.raw
	}
	manifests, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	x.top["manifests"] = manifests
	return json.Marshal(x.top)
}

// newEntry describes d, which must carry no annotations but those it is to have.
func newEntry(d v1.Descriptor) (*entry, error) {
	raw, err := json.Marshal(d)
	return &entry{digest: d.Digest.String(), annotations: d.Annotations, raw: raw}, err
}

// annotate sets the entry's annotations, and drops those whose value is empty.
// It reports whether anything but the time of tagging changed.
func (e *entry) annotate(set map[string]string) (changed bool, err error) {
	was := e.annotations
	now := make(map[string]string, len(was)+len(set))
	for k, v := range was {
		now[k] = v
	}
	for k, v := range set {
		if now[k] != v && k != taggedAnnotation {
			changed = true
		}
		if now[k] = v; v == "" {
			delete(now, k)
		}
	}
	if !changed {
		return false, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(e.raw, &fields); err != nil {
		return false, err
	}
	delete(fields, "annotations")
	if len(now) > 0 {
		if fields["annotations"], err = json.Marshal(now); err != nil {
			return false, err
		}
	}
	e.annotations = now
	e.raw, err = json.Marshal(fields)
	return true, err
}

// name is the entry's full normalised name, "" if it has none.
func (e *entry) name() string {
	name, _ := entryName(e.annotations[nameAnnotation], e.annotations[refNameAnnotation])
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
		if e.annotations[nameAnnotation] == "" && e.annotations[refNameAnnotation] == "" {
			return e.annotate(set)
		}
	}
	if len(same) > 0 { // what is known of the image is known under the new name too
		for _, k := range []string{createdAnnotation, sizeAnnotation} {
			if v := same[0].annotations[k]; v != "" {
				set[k] = v
			}
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

// of returns the entries of one digest.
func (x *index) of(digest string) []*entry {
	var same []*entry
	for _, e := range x.entries {
		if e.digest == digest {
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
