package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/wherry-oci/wherry/e2e/testreg"
)

// TestRecipes does what the files of examples/ci say, as they are, in containers as the products make them that the files
// are for: each builds a Dockerfile and pushes the result, twice, the second time out of the cache that it keeps; and
// wherry doctor says there that it stands on the rung which the README's table names.
func TestRecipes(t *testing.T) {
	s, err := newSuite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	s.require(t, "root", "ranged", "runc", "busybox", "podman", "docker")
	table := recipeTable(t)
	files, err := filepath.Glob("../examples/ci/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.ContainsFunc(table, func(r *recipe) bool { return r.file == filepath.Base(file) }) {
			t.Errorf("the README's table lacks %s", file)
		}
	}
	all := &recipes{suite: s, dir: filepath.Join(s.dir, "recipes")}
	if err := all.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer all.registry.Close()
	for _, r := range table {
		r.recipes, r.dir = all, filepath.Join(all.dir, r.file)
		t.Run(r.file, r.test)
	}
}

// require skips a test where a condition does not hold. In CI that is a failure.
func (s *suite) require(t *testing.T, conditions ...string) {
	t.Helper()
	for _, cond := range conditions {
		ok, err := s.condition(cond)
		switch {
		case err != nil:
			t.Fatal(err)
		case ok:
		case os.Getenv("CI") == "true":
			t.Fatalf("needs %s; in CI nothing is skipped", needs[cond])
		default:
			t.Skip("needs " + needs[cond])
		}
	}
}

// recipes is what all of them share.
type recipes struct {
	*suite
	dir      string
	registry *testreg.Registry
}

// recipe is a file of examples/ci, and what the README says of it.
type recipe struct {
	*recipes
	file, rung string
	dir        string // where it keeps what it has
}

// The people of the registry, of whom there is one.
const (
	recipeUser  = "ci"
	recipeToken = "t0ken-of-a-recipe"
)

// recipeHosts are the names that the files have for the registry of the test.
var recipeHosts = []string{"registry.corp", "ghcr.io"}

// recipeTable reads the README's table: a line has a link to the file, and the rung in the last column.
func recipeTable(t *testing.T) (table []*recipe) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\|.*\]\(examples/ci/([^)]+)\).*\| ([a-f]) \|$`).FindAllStringSubmatch(string(readme), -1) {
		table = append(table, &recipe{file: m[1], rung: m[2]})
	}
	if len(table) == 0 {
		t.Fatal("the README has no table of recipes")
	}
	return table
}

// test does what a file says, and looks at what has come of it.
func (r *recipe) test(t *testing.T) {
	run, err := r.runner()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(r.project(), 0o755), os.Chmod(r.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t.Context(), "doctor", "--format", "{{.Build.Rung}} {{.Build.Steps}}", "registry.corp"); !slices.Contains(strings.Split(out, "\n"), fmt.Sprintf("%s %v", r.rung, r.rung != "f")) {
		t.Fatalf("not rung %s: %v\n%s", r.rung, err, out)
	}
	for n := range 2 {
		if err := r.writeProject("RUN id -u > /id\n"); err != nil {
			t.Fatal(err)
		}
		out, err := run(t.Context())
		if r.rung == "f" {
			if err == nil || !strings.Contains(out, "no step can be run here") || !strings.Contains(out, "hint: in the pod's spec: securityContext") {
				t.Fatalf("a RUN was not refused, with a hint: %v\n%s", err, out)
			}
			if err := r.writeProject(""); err != nil {
				t.Fatal(err)
			}
			out, err = run(t.Context())
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r.check(t, out, n == 1)
	}
}

// check requires that what the file's commands have written tells of an image that was pushed, and of the cache.
func (r *recipe) check(t *testing.T, out string, cached bool) {
	t.Helper()
	digests := regexp.MustCompile(`(?m)^sha256:[0-9a-f]{64}$`).FindAllString(out, -1)
	pushed := slices.ContainsFunc([]string{"1", recipeCommit, recipeCommit[:8]}, func(tag string) bool {
		got, err := r.registry.Digest("team/app:" + tag)
		return err == nil && len(digests) > 0 && got.String() == digests[len(digests)-1]
	})
	if !pushed {
		t.Errorf("%q were not pushed\n%s", digests, out)
	}
	if found := strings.Contains(out, "CACHED"); found != cached {
		t.Errorf("from the cache: %v\n%s", found, out)
	}
	if strings.Contains(out, recipeToken) {
		t.Errorf("the password is told\n%s", out)
	}
}

func (r *recipe) project() string { return filepath.Join(r.dir, "app") }

// path is the file, from anywhere.
func (r *recipe) path() (string, error) { return filepath.Abs(filepath.Join("../examples/ci", r.file)) }

// writeProject makes a build context, whose image is another one for each recipe. Its base image is only for those who have logged in.
func (r *recipe) writeProject(step string) error {
	text, err := os.ReadFile(filepath.Join("../examples/ci", r.file))
	if err != nil {
		return err
	}
	host := recipeHosts[0]
	if bytes.Contains(text, []byte("ghcr.io/${{")) {
		host = "ghcr.io"
	}
	dockerfile := fmt.Sprintf("FROM %s/team/toolbox\n%sCOPY --chown=1000:50 file /\n", host, step)
	return errors.Join(
		os.WriteFile(filepath.Join(r.project(), "Dockerfile"), []byte(dockerfile), 0o644),
		os.WriteFile(filepath.Join(r.project(), "file"), []byte(r.file+r.rung), 0o644),
	)
}

// recipeRun does what a recipe says; or, with arguments, what it says with those in place of wherry's.
type recipeRun func(ctx context.Context, args ...string) (output string, err error)

// runner knows the product that a file is for.
func (r *recipe) runner() (recipeRun, error) {
	switch r.file {
	case "gitlab-ci.yml":
		return r.gitlab()
	case "github-actions.yml":
		return r.github()
	case "docker.sh":
		return r.docker()
	case "podman.sh":
		return r.podman()
	case "vm.sh", "vm-setup.sh":
		return r.machine()
	}
	if strings.HasPrefix(r.file, "kubernetes-") {
		return r.pod()
	}
	return nil, fmt.Errorf("nobody knows how to run %s", r.file)
}

// command runs a program in a folder, with nothing but an environment, and returns all it writes.
func (r *recipes) command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	if name == "wherry" {
		name = filepath.Join(r.bin(), name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=" + r.bin() + ":" + os.Getenv("PATH")}, env...)
	// A file: whoever stays behind, as podman's processes do, would hold a pipe open.
	out, err := os.CreateTemp(r.dir, "output")
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, errRead := os.ReadFile(out.Name())
	return string(text), errors.Join(err, errRead)
}

// prepare starts the registry, and makes the images that files name, by the repository's Dockerfile.
func (r *recipes) prepare(ctx context.Context) (err error) {
	if r.registry, err = testreg.Start(testreg.Options{Auth: "basic", User: recipeUser, Password: recipeToken}); err != nil {
		return err
	}
	index, err := r.base()
	if err != nil {
		return err
	}
	if err := errors.Join(r.registry.Put("team/toolbox:latest", index), os.Mkdir(r.dir, 0o755)); err != nil {
		return err
	}
	if err := r.writeImage(); err != nil {
		return err
	}
	repository, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	for _, line := range [][]string{
		{"sh", "fill", "bb"},
		{"sh", "fill", "golang"},
		{"cp", "go", "ca", filepath.Join(r.bin(), "wherry"), "golang"},
		{"wherry", "build", "-q", "-t", "busybox:1.37-musl", "bb"},
		{"wherry", "build", "-q", "-t", "golang:1.26.8", "golang"},
		{"wherry", "build", "-q", "-t", "own", repository},
		{"wherry", "build", "-q", "-t", "own:debug", "--target", "debug", repository},
		{"wherry", "build", "-q", "-t", "registry.corp/wherry", "-o", "type=local,dest=root", "image"},
		{"wherry", "build", "-q", "-t", "registry.corp/wherry:debug", "--target", "debug", "-o", "type=local,dest=debug", "image"},
		{"wherry", "build", "-q", "-t", "registry.corp/wherry", "image"},
		{"wherry", "build", "-q", "-t", "registry.corp/wherry:debug", "--target", "debug", "image"},
		{"wherry", "save", "-o", "own.tar", "registry.corp/wherry"},
		{"chmod", "644", "own.tar"},
	} {
		if out, err := r.command(ctx, r.dir, r.ourEnv(), line[0], line[1:]...); err != nil {
			return fmt.Errorf("%q: %w\n%s", line, err, out)
		}
	}
	return nil
}

// writeImage writes what the images are made of: what stands in for the Go compiler in the repository's Dockerfile, which belongs
// to the story of that, and how a machine's owner says where registries are.
func (r *recipes) writeImage() error {
	story, err := txtar.ParseFile("testdata/own_image.txtar")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"image/Dockerfile": []byte("FROM own:debug AS debug\nCOPY certs.d /etc/wherry/certs.d\nFROM own\nCOPY certs.d /etc/wherry/certs.d\n"),
	}
	for _, f := range story.Files {
		files[f.Name] = f.Data
	}
	for _, host := range recipeHosts {
		files["image/certs.d/"+host+"/hosts.toml"] = fmt.Appendf(nil, "server = \"http://%s\"\n", r.registry.Addr())
	}
	for name, text := range files {
		file := filepath.Join(r.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, text, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// ourEnv is that of the wherry which makes the images.
func (r *recipes) ourEnv() []string {
	return []string{"HOME=" + r.dir, "TMPDIR=" + r.dir, "WHERRY_STORE=" + filepath.Join(r.dir, "store")}
}

// imageConfig is what an image says of its programs.
type imageConfig struct {
	Entrypoint, Cmd, Env []string
	User                 string
}

// config of an image that prepare has made.
func (r *recipes) config(ctx context.Context, image string) (c imageConfig, err error) {
	out, err := r.command(ctx, r.dir, r.ourEnv(), "wherry", "inspect", "--format", "{{json .Config}}", image)
	if err != nil {
		return c, fmt.Errorf("%w\n%s", err, out)
	}
	return c, json.Unmarshal([]byte(out), &c)
}

// auths is a configuration as docker login and podman login write it, of all names that the registry has.
func auths() string {
	entries := map[string]any{}
	for _, host := range recipeHosts {
		entries[host] = map[string][]byte{"auth": []byte(recipeUser + ":" + recipeToken)}
	}
	text, err := json.Marshal(map[string]any{"auths": entries})
	if err != nil {
		panic(err) // strings and bytes can always be written
	}
	return string(text)
}
