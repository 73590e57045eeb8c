package registry

import (
	"context"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// around is a repository as Copy needs it.
type around func(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error)

func (a around) Referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	return a(ctx, subject)
}

// What is copied twice is asked for once, and what refers to it is copied once.
func TestCopy(t *testing.T) {
	from, to, c := newLister(t), newFake(t), newClient(Config{})
	src, dst := from.ref(t, "app:1"), to.ref(t, "app:1")
	index := newIndex(false)
	mustPush(t, c, src, index)
	sig := signature(index.root, 1)
	mustPush(t, c, byDigest(t, src, sig), sig)
	img, err := c.Get(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	refers := around(func(ctx context.Context, h v1.Hash) ([]v1.Descriptor, error) { return c.Referrers(ctx, src, h) })
	for n, want := range []int{1, 0} {
		done, err := c.Copy(t.Context(), dst, img, refers)
		if err != nil {
			t.Fatal(err)
		}
		if done.Referrers != want || len(done.Documents) != 8 { // the index and its five, the one in the nested one, the signature
			t.Errorf("copy %d: %d referrers, %d documents", n, done.Referrers, len(done.Documents))
		}
	}
	mustHold(t, c, dst, index)
	mustRefer(t, c, dst, index.root, sig)
	if n := len(to.asked("PATCH", "")); n == 0 || n != len(to.asked("PUT", "/blobs/")) {
		t.Errorf("%d uploads", n)
	}
	d, err := c.Head(t.Context(), dst)
	if err != nil || d.Digest != index.root.Digest || !c.Has(t.Context(), dst, index.root.Digest) {
		t.Errorf("head: %v, %v", d, err)
	}
	if c.Has(t.Context(), to.ref(t, "app:2"), index.root.Digest) {
		t.Error("has what is not there")
	}
}

// Who is asked for something without HEAD is asked for all of it.
func TestHeadWithoutHead(t *testing.T) {
	f, m, c := newFake(t), newImage(1, 10), newClient(Config{})
	mustPush(t, c, f.ref(t, "app:1"), m)
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodHead
	})
	if d, err := c.Head(t.Context(), f.ref(t, "app:1")); err != nil || d.Digest != m.root.Digest || d.Size != m.root.Size {
		t.Errorf("head: %v, %v", d, err)
	}
	if _, err := c.Head(t.Context(), f.ref(t, "app:2")); !is[*NotFoundError](err) {
		t.Errorf("head of nothing: %v", err)
	}
}

// A ring of referrers, or a chain without end, does not keep a copy for ever.
func TestReferralsEnd(t *testing.T) {
	f, c := newFake(t), newClient(Config{})
	m := newImage(1, 10)
	mustPush(t, c, f.ref(t, "app:1"), m)
	img, err := c.Get(t.Context(), f.ref(t, "app:1"))
	if err != nil {
		t.Fatal(err)
	}
	ring := around(func(context.Context, v1.Hash) ([]v1.Descriptor, error) { return []v1.Descriptor{m.root}, nil })
	if _, documents, err := Referrals(t.Context(), img, ring); err != nil || len(documents) != 1 {
		t.Errorf("a ring: %d documents, %v", len(documents), err)
	}
	n := 0
	chain := around(func(context.Context, v1.Hash) ([]v1.Descriptor, error) {
		n++
		d := m.root
		d.Digest.Hex = strings.Repeat(string(rune('a'+n%6)), 63) + string(rune('0'+n/6%10))
		return []v1.Descriptor{d}, nil
	})
	if _, _, err := Referrals(t.Context(), img, chain); err == nil {
		t.Error("a chain without end ended")
	}
}
