package layout

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// facts are what index.json remembers of an image, so that a list reads no blob.
type facts struct {
	created time.Time
	size    int64
}

func (f facts) annotations() map[string]string {
	a := map[string]string{sizeAnnotation: fmt.Sprint(f.size), createdAnnotation: ""}
	if !f.created.IsZero() {
		a[createdAnnotation] = f.created.UTC().Format(time.RFC3339Nano)
	}
	return a
}

// Created is when the image says it was made: the config's date, of an index
// that of [Image.Best]'s. The zero time if there is none. It is cached in
// index.json; of what other tools wrote the blobs are read.
func (i *Image) Created() time.Time { return i.known().created }

// Size is how many bytes of the image the store has: its manifests, configs and
// layers, as stored (compressed), each once. Of an index that is the sum over
// the platforms that are present. It is cached in index.json when the image is
// put, so what another image brings in later is not counted; of what other
// tools wrote the blobs are read.
func (i *Image) Size() int64 { return i.known().size }

// Tagged is when the entry got its name here; the zero time if another tool
// gave it, or if it has none.
func (i *Image) Tagged() time.Time { return i.tagged }

// survey finds the facts in the blobs. What can't be read counts for nothing.
func (i *Image) survey(ctx context.Context) facts {
	var f facts
	f.size, _, _ = i.store.weigh(ctx, i.desc)
	best, err := i.best(ctx)
	if err != nil {
		return f
	}
	if c, err := best.config(ctx); err == nil {
		f.created = c.Created.Time
	}
	return f
}

// remembered are an image's facts, shared by its copies. Those that index.json
// doesn't tell are read from the blobs when somebody asks for them, once.
type remembered struct {
	facts
	once sync.Once
}

func remember(f facts) *remembered {
	r := &remembered{facts: f}
	r.once.Do(func() {})
	return r
}

func (i *Image) known() facts {
	i.facts.once.Do(func() { i.facts.facts = i.survey(context.Background()) })
	return i.facts.facts
}

// weigh adds up what the store has below d; whole tells whether that is all.
func (s *Store) weigh(ctx context.Context, d v1.Descriptor) (size int64, whole bool, err error) {
	held, whole, err := s.holdings(ctx, d)
	for _, h := range held {
		size += h.Size
	}
	return size, whole, err
}

// holdings are the blobs that the store has of d, itself among them, each once;
// whole tells whether that is all.
func (s *Store) holdings(ctx context.Context, d v1.Descriptor) (held []v1.Descriptor, whole bool, err error) {
	if !s.has(d) {
		return nil, false, nil
	}
	t, err := walk(ctx, d, walker{read: s.read, sparse: true})
	if err != nil {
		return nil, false, err
	}
	whole = true
	for _, doc := range t.docs {
		held = append(held, doc.desc)
		for _, c := range doc.children {
			whole = whole && s.has(c)
		}
	}
	for _, b := range t.blobs {
		if s.has(b) {
			held = append(held, b)
		} else {
			whole = false
		}
	}
	return held, whole, nil
}
