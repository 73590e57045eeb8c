//go:build linux

package build_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/build"
)

// unbuildable is why nothing can be built here; "" if builds work.
var unbuildable string

// TestMain does what a program that builds has to do: let Init take over where this
// process is a part of a build, and enter the namespaces that a build needs.
func TestMain(m *testing.M) {
	build.Init()
	code, entered, err := new(build.State).Enter(context.Background(), build.IsolationNamespaces, nil)
	if err != nil {
		if os.Getenv("CI") == "true" { //nolint:forbidigo // a switch of the tests, not of the library
			panic(fmt.Sprint("in CI nothing is skipped: ", err))
		}
		unbuildable = err.Error()
		if err := flag.Set("test.skip", "^Example$"); err != nil { // an example can't skip itself
			panic(err)
		}
	}
	if entered {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			panic(err)
		}
	}
	write("greeting", "ahoy\n")
	write("Dockerfile", "FROM scratch\nCOPY greeting /srv/\n")
	store, err := newFolderStore(filepath.Join(dir, "store")) // package layout has a real one
	if err != nil {
		panic(err)
	}

	_, err = build.Build(context.Background(), store, build.State{Dir: filepath.Join(dir, "state")}, build.Request{
		Context: dir,
		Outputs: []build.Output{{Type: build.OutputLocal, Dest: filepath.Join(dir, "root")}},
	})
	text, _ := os.ReadFile(filepath.Join(dir, "root", "srv", "greeting"))
	fmt.Println(string(text), err)
	// Output:
	// ahoy
	//  <nil>
}

// project is a build context in a temporary folder, beside a store and a state.
type project struct {
	t     *testing.T
	dir   string
	store *folderStore
	state build.State
}

func newProject(t *testing.T) *project {
	t.Helper()
	if unbuildable != "" {
		t.Skip(unbuildable)
	}
	dir := t.TempDir()
	s, err := newFolderStore(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	return &project{t, dir, s, build.State{Dir: filepath.Join(dir, "state")}}
}

func (p *project) folder(name string, files map[string]string) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, name)
	for path, text := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}

func (p *project) build(r build.Request) (*build.Result, error) {
	return build.Build(p.t.Context(), p.store, p.state, r)
}

func (p *project) mustBuild(r build.Request) *build.Result {
	p.t.Helper()
	res, err := p.build(r)
	if err != nil {
		p.t.Fatal(err)
	}
	return res
}

func name(t *testing.T, s string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		t.Fatal(err)
	}
	return reference.TagNameOnly(n)
}

func TestResultIsLinkedNamedAndFoundByFrom(t *testing.T) {
	p := newProject(t)
	base := p.folder("base", map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /base\n"})
	res := p.mustBuild(build.Request{Context: base, Names: []reference.Named{name(t, "base:1")}})
	if p.store.names["docker.io/library/base:1"].Digest != res.Digest {
		t.Fatalf("the store has %v, the result is %v", p.store.names, res.Digest)
	}
	raw, err := os.Open(p.store.BlobPath(res.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	manifest, err := v1.ParseManifest(raw)
	if err != nil || len(manifest.Layers) != 1 {
		t.Fatalf("the manifest is %+v, %v", manifest, err)
	}
	info, err := os.Stat(p.store.BlobPath(manifest.Layers[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	if n := links(info); n != 2 {
		t.Errorf("the layer has %d links, want the engine's and the store's", n)
	}

	var notes bytes.Buffer
	top := p.folder("top", map[string]string{"Dockerfile": "# syntax=docker/dockerfile:1\nFROM base:1\nCOPY Dockerfile /top\n"})
	again := p.mustBuild(build.Request{Context: top, Progress: build.Progress{Mode: "plain", Out: &notes}})
	if again.Digest == res.Digest || !strings.Contains(notes.String(), "FROM docker.io/library/base:1@"+res.Digest.String()) {
		t.Errorf("FROM did not come from the store:\n%s", notes.String())
	}
	if cached := p.mustBuild(build.Request{Context: top}); cached.Digest != again.Digest {
		t.Errorf("a cached build gave %s, the first one %s", cached.Digest, again.Digest)
	}
}

// Two projects have files of the same name, size and time: each gets its own content.
func TestProjectsDoNotShareFiles(t *testing.T) {
	p := newProject(t)
	when := time.Now().Add(-time.Hour)
	for _, text := range []string{"aaaa", "bbbb", "aaaa"} {
		dir := p.folder(text, map[string]string{"Dockerfile": "FROM scratch\nCOPY data /\n", "data": text})
		for _, f := range []string{"Dockerfile", "data"} {
			if err := os.Chtimes(filepath.Join(dir, f), when, when); err != nil {
				t.Fatal(err)
			}
		}
		out := filepath.Join(p.dir, "out-"+text)
		p.mustBuild(build.Request{Context: dir, Outputs: []build.Output{{Type: build.OutputLocal, Dest: out}}})
		if got, err := os.ReadFile(filepath.Join(out, "data")); string(got) != text {
			t.Errorf("the project with %q got %q (%v)", text, got, err)
		}
	}
}

func TestBuildsRunSideBySide(t *testing.T) {
	p := newProject(t)
	dir := p.folder("ctx", map[string]string{"Dockerfile": "FROM scratch\nARG N\nCOPY Dockerfile /$N\n"})
	var wg sync.WaitGroup
	digests := make([]v1.Hash, 6)
	for i := range digests {
		wg.Go(func() {
			res, err := p.build(build.Request{Context: dir, BuildArgs: map[string]string{"N": fmt.Sprint(i % 3)}})
			if err != nil {
				t.Error(err)
				return
			}
			digests[i] = res.Digest
		})
	}
	wg.Wait()
	if digests[0] == digests[1] || digests[1] == digests[2] {
		t.Errorf("builds with different arguments gave one result: %v", digests)
	}
}

func TestFailuresSayWhatAndWhere(t *testing.T) {
	p := newProject(t)
	for _, c := range []struct {
		dockerfile, message, excerpt string
	}{
		{"FROM scratch\nCOPY nothing /\n", `COPY nothing /: "/nothing": not found`, ">>> COPY nothing /"},
		{"FROM scratch\nCOPIE a /\n", "COPIE a /: dockerfile parse error on line 2: unknown instruction: COPIE (did you mean COPY?)", ">>> COPIE a /"},
		{"FROM 127.0.0.1:1/a:1\n", `image "127.0.0.1:1/a:1": not in the store, and 127.0.0.1:1 is unreachable: connection refused`, ">>> FROM 127.0.0.1:1/a:1"},
	} {
		dir := p.folder("ctx", map[string]string{"Dockerfile": c.dockerfile})
		_, err := p.build(build.Request{Context: dir})
		var failed *build.Error
		if !errors.As(err, &failed) {
			t.Errorf("%q: got %v", c.dockerfile, err)
			continue
		}
		if failed.Message != c.message || !strings.Contains(failed.Excerpt, c.excerpt) {
			t.Errorf("%q: got %q\n%s", c.dockerfile, failed.Message, failed.Excerpt)
		}
	}
	var from *build.FromError
	if _, err := p.build(build.Request{Context: filepath.Join(p.dir, "ctx")}); !errors.As(err, &from) || from.Reason != build.FromUnreachable {
		t.Errorf("the reason did not survive: %v", err)
	}
}

func TestMistakesAreFoundBeforeAnythingStarts(t *testing.T) {
	p := newProject(t)
	dir := p.folder("ctx", map[string]string{"file": ""})
	var missing *build.NoDockerfileError
	if _, err := p.build(build.Request{Context: dir}); !errors.As(err, &missing) {
		t.Errorf("no Dockerfile: got %v", err)
	}
	for _, context := range []string{filepath.Join(dir, "file"), filepath.Join(dir, "nowhere")} {
		if _, err := p.build(build.Request{Context: context}); err == nil {
			t.Errorf("context %q was taken", context)
		}
	}
	if _, err := os.Stat(p.state.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a build state was made: %v", err)
	}
}

// An output file has its name only when the build succeeded.
func TestFailedBuildKeepsTheOldOutput(t *testing.T) {
	p := newProject(t)
	dir := p.folder("ctx", map[string]string{"Dockerfile": "FROM scratch\nCOPY nothing /\n"})
	dest := filepath.Join(p.dir, "out.tar")
	if err := os.WriteFile(dest, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := []build.Output{{Type: build.OutputTar, Dest: dest}}
	if _, err := p.build(build.Request{Context: dir, Outputs: out}); err == nil {
		t.Fatal("the build succeeded")
	}
	if got, err := os.ReadFile(dest); string(got) != "old" {
		t.Errorf("the file became %q (%v)", got, err)
	}
	p.folder("ctx", map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	p.mustBuild(build.Request{Context: dir, Outputs: out})
	if got, err := os.ReadFile(dest); err != nil || len(got) < 512 {
		t.Errorf("the file has %d bytes (%v), want a tar", len(got), err)
	}
	left, err := filepath.Glob(filepath.Join(p.dir, ".out.tar*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
