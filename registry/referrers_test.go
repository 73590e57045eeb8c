package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/distribution/reference"
)

// newLister is a registry that has the referrers API.
func newLister(t *testing.T) *fake {
	t.Helper()
	f := &fake{registry: ggcrregistry.New(ggcrregistry.Logger(discardLog()), ggcrregistry.WithReferrersSupport(true))}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// signature is an artifact that refers to subject.
func signature(subject v1.Descriptor, n int) *memory {
	m := &memory{blobs: map[v1.Hash][]byte{}}
	m.root = m.addJSON(types.OCIManifestSchema1, map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": "application/x-signature",
		"config": m.add("application/x-signature", []byte("{}")), "subject": subject,
		"layers":      []v1.Descriptor{m.add("application/x-signature", fmt.Appendf(nil, "signature %d", n))},
		"annotations": map[string]string{"n": fmt.Sprint(n)},
	})
	return m
}

func byDigest(t *testing.T, repo reference.Named, m *memory) reference.Named {
	t.Helper()
	return mustRef(t, repo.Name()+"@"+m.root.Digest.String())
}

// mustRefer fails unless all of these, and nothing else, are listed.
func mustRefer(t *testing.T, c *Client, repo reference.Named, subject v1.Descriptor, want ...*memory) {
	t.Helper()
	list, err := c.Referrers(t.Context(), repo, subject.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(want) {
		t.Fatalf("there are %d referrers, not %d", len(list), len(want))
	}
	for _, m := range want {
		i := slices.IndexFunc(list, func(d v1.Descriptor) bool { return d.Digest == m.root.Digest })
		if i < 0 {
			t.Fatalf("%s is not listed", m.root.Digest)
		}
		if d := list[i]; d.ArtifactType != "application/x-signature" || d.MediaType != types.OCIManifestSchema1 || d.Size != m.root.Size {
			t.Errorf("it is listed as %+v", d)
		}
	}
}

// What refers to an image is listed, whether the registry does so itself or has
// to be told; also of what is pushed at the same time.
func TestReferrers(t *testing.T) {
	for name, f := range map[string]*fake{"by the API": newLister(t), "by a tag": newFake(t)} {
		t.Run(name, func(t *testing.T) {
			c, repo, image := newClient(Config{}), f.ref(t, "app:1"), newImage(1, 1000)
			mustRefer(t, c, repo, image.root)
			mustPush(t, c, repo, image)
			mustRefer(t, c, repo, image.root)
			var all []*memory
			var pushing sync.WaitGroup
			for n := range 12 {
				s := signature(image.root, n)
				all = append(all, s)
				pushing.Go(func() { mustPush(t, c, byDigest(t, repo, s), s) })
			}
			pushing.Wait()
			mustRefer(t, c, repo, image.root, all...)
			if err := c.Refer(t.Context(), repo, image.root.Digest, all[0].root); err != nil {
				t.Error(err)
			}
			mustRefer(t, newClient(Config{}), repo, image.root, all...)
			_, err := c.Get(t.Context(), mustRef(t, reference.FamiliarName(repo)+":"+ReferrersTag(image.root.Digest)))
			if byTag := name == "by a tag"; byTag != (err == nil) {
				t.Errorf("the tag: %v", err)
			}
		})
	}
}

// A registry that says it keeps the list is not asked whether it does.
func TestReferrersKept(t *testing.T) {
	f, image := newFake(t), newImage(1, 10)
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("OCI-Subject", image.root.Digest.String())
		}
		return false
	})
	s := signature(image.root, 1)
	mustPush(t, newClient(Config{}), byDigest(t, f.ref(t, "app"), s), s)
	if n := len(f.asked("GET", "")); n != 0 {
		t.Errorf("%d questions", n)
	}
}

// A signature that a push which did not end left unlisted is listed by Refer.
func TestReferRepairs(t *testing.T) {
	f, image := newFake(t), newImage(1, 10)
	repo, s, c := f.ref(t, "app:1"), signature(image.root, 1), newClient(Config{})
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, ReferrersTag(image.root.Digest)) {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	if err := c.Push(t.Context(), byDigest(t, repo, s), s); !is[*UnauthorizedError](err) {
		t.Fatalf("the list could not be written, and push says %v", err)
	}
	f.on(nil)
	mustRefer(t, c, repo, image.root)
	listed, _ := referralIn(s.blobs[s.root.Digest], s.root)
	if err := c.Refer(t.Context(), repo, image.root.Digest, listed.referrer); err != nil {
		t.Fatal(err)
	}
	mustRefer(t, c, repo, image.root, s)
}

// answerReferrers has the referrers API answer with this.
func answerReferrers(contentType string, pages ...string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		n := 0
		_, _ = fmt.Sscanf(r.URL.RawQuery, "page=%d", &n)
		if n+1 < len(pages) {
			w.Header().Set("Link", fmt.Sprintf(`<http://elsewhere.test/?page=%d>; rel="next"`, n+1))
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(pages[n]))
		return true
	}
}

func TestReferrersInPages(t *testing.T) {
	f, image := newFake(t), newImage(1, 10)
	a, b := signature(image.root, 1), signature(image.root, 2)
	list := func(of ...*memory) string {
		index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
		for _, m := range of {
			d := m.root
			d.ArtifactType = "application/x-signature"
			index.Manifests = append(index.Manifests, d)
		}
		raw, _ := json.Marshal(index)
		return string(raw)
	}
	f.on(answerReferrers("application/vnd.oci.image.index.v1+json; charset=utf-8", list(a), list(), list(a, b)))
	mustRefer(t, newClient(Config{}), f.ref(t, "app"), image.root, a, b)
}

// What is no list of referrers is none, and a list that cannot be true is refused.
func TestReferrersThatLie(t *testing.T) {
	image := newImage(1, 10)
	index := string(types.OCIImageIndex)
	one := func(size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"x","size":%d,"digest":"%s"}]}`, size, image.root.Digest)
	}
	for name, test := range map[string]struct {
		hook func(w http.ResponseWriter, r *http.Request) bool
		bad  bool
	}{
		"a page that says hello":   {answerReferrers("text/html", "<html>"), false},
		"no JSON":                  {answerReferrers(index, "<html>"), true},
		"a negative size":          {answerReferrers(index, one(-1)), true},
		"a huge one":               {answerReferrers(index, one(1<<40)), true},
		"no digest":                {answerReferrers(index, `{"manifests":[{"size":1}]}`), true},
		"a digest that leads away": {answerReferrers(index, `{"manifests":[{"size":1,"digest":"sha256:../../x"}]}`), true},
	} {
		f := newFake(t)
		f.on(test.hook)
		list, err := newClient(Config{}).Referrers(t.Context(), f.ref(t, "app"), image.root.Digest)
		if bad := is[*FormatError](err); bad != test.bad || len(list) > 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

func TestIsReferrersTag(t *testing.T) {
	h := newImage(1, 10).root.Digest
	for tag, want := range map[string]bool{
		ReferrersTag(h): true, ReferrersTag(h) + ".sig": true, ReferrersTag(h) + ".": false, ReferrersTag(h) + "0": false,
		"v1": false, "sha256-abc": false, "sha256-abc.sig": false, "": false,
	} {
		if got, ok := IsReferrersTag(tag); ok != want || ok && got != h {
			t.Errorf("%q: %v, %v", tag, got, ok)
		}
	}
}
