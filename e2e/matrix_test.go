package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestMatrix builds each Dockerfile of testdata/matrix on each rung of privilege, and prints the table of what came of
// it. With --reproducible the digests have to be equal on all of them.
//
// They build on the toolbox, or on a Debian. A case is a build context. What its comment says is for people; "setup.sh" in it is run in the context before, and
// "build" has further arguments of build, in which "@" is
// the context. "differs" says of rungs, a line each ("c: REASON"), why they may make
// another image: it is a failure if they don't. On a rung without steps a Dockerfile with RUN has to be refused.
func TestMatrix(t *testing.T) {
	s, err := newSuite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if reason := s.matrixNeeds(); reason != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s; in CI nothing is skipped", reason)
		}
		t.Skip("needs " + reason)
	}
	m := &matrix{suite: s, dir: filepath.Join(s.dir, "matrix")}
	if err := m.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.cases {
		t.Run(c.name, func(t *testing.T) { m.run(t, c) })
	}
	m.print()
}

// matrixNeeds is what is missing for all rungs to be there; "" if nothing is.
func (s *suite) matrixNeeds() string {
	for _, cond := range []string{"root", "ranged", "runc", "mmdebstrap", "dpkg-scanpackages"} {
		if ok, err := s.condition(cond); err != nil || !ok {
			return needs[cond]
		}
	}
	return ""
}

// matrix is the cases, the rungs, and what has come of each pair.
type matrix struct {
	*suite
	dir   string
	cases []*matrixCase
	rungs []*matrixRung
}

// matrixCase is one Dockerfile.
type matrixCase struct {
	name    string
	context string
	args    []string
	differs map[string]string // by rung: why
	steps   bool
	cells   map[string]string // by rung: what the table says
}

func (m *matrix) prepare(ctx context.Context) error {
	contained := func(uid uint32) account {
		return account{name: fmt.Sprintf("contained-%d", uid), login: "nobody", uid: uid, gid: uid}
	}
	m.rungs = []*matrixRung{
		{letter: "a", who: account{name: "root"}, steps: true},
		{letter: "b", who: m.accounts["ranged"], steps: true},
		{letter: "c", who: m.accounts["plain"], steps: true},
		{letter: "d", who: contained(1002), flags: []string{"-seccomp=unconfined", "-user=1002:1002"}, steps: true},
		{letter: "e", who: contained(0), flags: []string{}, steps: true},
		{letter: "f", who: contained(1003), flags: []string{"-user=1003:1003"}},
	}
	if err := errors.Join(os.Mkdir(m.dir, 0o755), m.writeBase(ctx)); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join("testdata", "matrix", "*.txtar"))
	if err != nil {
		return err
	}
	for _, file := range files {
		c, err := m.unpack(ctx, file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		m.cases = append(m.cases, c)
	}
	return nil
}

// writeBase makes the archives of the images that cases build on.
func (m *matrix) writeBase(ctx context.Context) error {
	index, err := m.base()
	if err != nil {
		return err
	}
	dir := filepath.Join(m.dir, "base")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	const name = "docker.io/library/toolbox:latest"
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: name, containerdName: name})); err != nil {
		return err
	}
	return command(ctx, "tar", "-C", dir, "-cf", filepath.Join(m.dir, "toolbox.tar"), ".")
}

// unpack makes the build context of a case.
func (m *matrix) unpack(ctx context.Context, file string) (*matrixCase, error) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(filepath.Base(file), ".txtar")
	c := &matrixCase{name: name, context: filepath.Join(m.dir, "case-"+name), differs: map[string]string{}, cells: map[string]string{}}
	for _, f := range archive.Files {
		switch f.Name {
		case "build":
			c.args = fields(bytes.ReplaceAll(f.Data, []byte("@"), []byte(c.context)))
			continue
		case "differs":
			for line := range strings.Lines(string(f.Data)) {
				letter, reason, _ := strings.Cut(strings.TrimSpace(line), ": ")
				c.differs[letter] = reason
			}
			continue
		case "Dockerfile":
			c.steps = bytes.Contains(f.Data, []byte("\nRUN ")) && !bytes.Contains(archive.Comment, []byte("no RUN is built"))
		}
		path := filepath.Join(c.context, f.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Data, 0o644)); err != nil {
			return nil, err
		}
	}
	setup := filepath.Join(c.context, "setup.sh")
	if _, err := os.Stat(setup); errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-eu", "setup.sh")
	cmd.Dir = c.context
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return c, os.Remove(setup)
}

// run builds a case on all rungs.
func (m *matrix) run(t *testing.T, c *matrixCase) {
	var first string
	for _, r := range m.rungs {
		digest, errs, err := m.wherry(t.Context(), r, m.arguments(c, r)...)
		switch {
		case c.steps && !r.steps && err != nil && strings.Contains(errs, "no step can be run here"):
			c.cells[r.letter] = "no RUN"
		case c.steps && !r.steps:
			c.cells[r.letter] = "not refused"
			t.Errorf("rung %s: a RUN was not refused: %v\n%s", r.letter, err, errs)
		case err != nil:
			c.cells[r.letter] = "failed"
			t.Errorf("rung %s: %v\n%s", r.letter, err, errs)
		default:
			if first == "" {
				first = digest
			}
			m.compare(t, c, r, first, digest)
		}
	}
}

func (m *matrix) arguments(c *matrixCase, r *matrixRung) []string {
	args := []string{"build", "-q", "--reproducible", "-t", "case:" + c.name}
	return append(slices.Concat(args, r.wherry, c.args), c.context)
}

// compare fills a cell of the table.
func (m *matrix) compare(t *testing.T, c *matrixCase, r *matrixRung, first, digest string) {
	reason, excused := c.differs[r.letter]
	switch {
	case digest == first && excused:
		c.cells[r.letter] = "equal"
		t.Errorf("rung %s: the digest is equal, although: %s", r.letter, reason)
	case digest == first:
		c.cells[r.letter] = "equal"
	case excused:
		c.cells[r.letter] = "differs"
	default:
		c.cells[r.letter] = "DIFFERS"
		t.Errorf("rung %s: %s, not %s:\n%s", r.letter, digest, first, m.difference(c, r))
	}
}

// difference is where the files of an image are not those of rung a.
func (m *matrix) difference(c *matrixCase, r *matrixRung) string {
	var lists [2]bytes.Buffer
	for i, rung := range []*matrixRung{m.rungs[0], r} {
		store := filepath.Join(rung.who.home(filepath.Join(m.dir, "rung-"+rung.letter)), "store")
		if err := listImage(&lists[i], store, "docker.io/library/case:"+c.name); err != nil {
			return err.Error()
		}
	}
	want, got := strings.Split(lists[0].String(), "\n"), strings.Split(lists[1].String(), "\n")
	var out strings.Builder
	for _, line := range want {
		if !slices.Contains(got, line) {
			fmt.Fprintln(&out, "- "+line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			fmt.Fprintln(&out, "+ "+line)
		}
	}
	return out.String()
}

// listImage writes the files of an image, and its history.
func listImage(out *bytes.Buffer, store, name string) error {
	path, err := layout.FromPath(store)
	if err != nil {
		return err
	}
	index, err := path.ImageIndex()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		if d.Annotations[containerdName] != name {
			continue
		}
		img, err := pick(path, d, hostPlatform())
		if err != nil {
			return err
		}
		config, err := img.ConfigFile()
		if err != nil {
			return err
		}
		for _, h := range config.History {
			fmt.Fprintf(out, "%+v\n", h)
		}
		return showFiles(out, img)
	}
	return fmt.Errorf("no %s in %s", name, store)
}

// print writes the table of cases and rungs.
func (m *matrix) print() {
	fmt.Printf("%-22s", "case")
	for _, r := range m.rungs {
		fmt.Printf(" %-8s", r.letter)
	}
	fmt.Println()
	for _, c := range m.cases {
		if len(c.cells) == 0 { // it was not asked for
			continue
		}
		fmt.Printf("%-22s", c.name)
		for _, r := range m.rungs {
			fmt.Printf(" %-8s", c.cells[r.letter])
		}
		fmt.Println()
		for _, letter := range slices.Sorted(maps.Keys(c.differs)) {
			fmt.Printf("  %s: %s\n", letter, c.differs[letter])
		}
	}
}
