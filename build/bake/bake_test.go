package bake

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/shlex"
	"github.com/rogpeppe/go-internal/txtar"
)

// command is what a line of testdata asks for: bake's arguments.
type command struct {
	targets, sets []string
	vars          map[string]string
}

func readCommand(t *testing.T, line string) command {
	t.Helper()
	words, err := shlex.Split(line)
	if err != nil {
		t.Fatal(err)
	}
	c := command{vars: map[string]string{}}
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "--set":
			i++
			c.sets = append(c.sets, words[i])
		case "--var":
			i++
			name, value, _ := strings.Cut(words[i], "=")
			c.vars[name] = value
		default:
			c.targets = append(c.targets, words[i])
		}
	}
	return c
}

// The definitions in testdata, each with a command in front, are resolved to what docker
// buildx v0.38.2 bake --print prints for them: their want.json. Files in folders are those
// that others name.
func TestPrint(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c := readCommand(t, string(archive.Comment))
			var files []File
			var want string
			for _, f := range archive.Files {
				switch {
				case f.Name == "want.json":
					want = string(f.Data)
				case !strings.Contains(f.Name, "/"):
					files = append(files, File{Name: f.Name, Data: f.Data})
				}
			}
			d, err := Parse(files, Options{
				Vars: c.vars, Environ: map[string]string{"FROM_ENV": "seen"},
				Builtin: map[string]string{"BAKE_CMD_CONTEXT": "cwd://", "BAKE_LOCAL_PLATFORM": "linux/amd64"},
				Open: func(name string) ([]byte, error) {
					i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == name })
					if i < 0 {
						return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
					}
					return archive.Files[i].Data, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			plan, err := d.Resolve(c.targets, c.sets)
			if err != nil {
				t.Fatal(err)
			}
			have, err := json.MarshalIndent(plan, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(decoded(t, string(have)), decoded(t, want)) {
				t.Errorf("have\n%s\nwant\n%s", have, want)
			}
		})
	}
}

func decoded(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// What can't be is told in the words of the definition.
func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		`target "default" { inherits = ["none"] }`:                                `failed to find target "none"`,
		`group "default" { targets = ["none"] }`:                                  `failed to find target "none"`,
		`target "a b" {}`:                                                         `file.hcl:1: Invalid name: invalid name "a b": letters, digits, _ and - are allowed`,
		`target "default" { policy = [] }`:                                        `file.hcl:1: policy is not supported: it needs an interpreter that is not linked in`,
		`target "default" { tags = [nothing] }`:                                   `file.hcl:1: Unknown variable: There is no variable named "nothing"`,
		`target "default" { output = ["dest=x"] }`:                                `file.hcl:1: `,
		`target "default" { contexts = { a = "target:default" } }`:                `target "default": its contexts lead back to itself, by "default"`,
		`target "default" { contexts = { a = "target:none" } }`:                   `target "default": failed to find target "none"`,
		"target \"default\" {\n  tags = [\"a\"\n}":                                `file.hcl:`,
		`variable "A" { default = B }` + "\n" + `variable "B" { default = A }`:    `file.hcl:`,
		`target "default" { matrix = { a = 1 } }`:                                 `file.hcl:1: Invalid name: matrix values must be a list`,
		"target \"x\" {\n name = \"n\"\n}\n":                                      `file.hcl:1: Invalid name: name requires matrix`,
		"group \"default\" {\n targets = []\n matrix = {}\n}":                     `file.hcl:1: Invalid name: a group can't have a matrix or a name`,
		`target "default" { attest = ["type=sbom,disabled=maybe"] }`:              `file.hcl:1: `,
		`target "default" { secret = ["id=a,colour=blue"] }`:                      `file.hcl:1: `,
		`target "default" { platforms = ["linux/amd64", "linux/arm64"], tags = [`: `file.hcl:1: `,
		"target \"default\" {\n target = \"a\"\n output = 1\n}":                   `file.hcl:3: Unsuitable value type: `,
	} {
		d, err := Parse([]File{{Name: "file.hcl", Data: []byte(text)}}, Options{})
		if err == nil {
			_, err = d.Resolve(nil, nil)
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\nhave %v\nwant %s", text, err, want)
		}
		if syntax, ok := errors.AsType[*SyntaxError](err); strings.HasPrefix(want, "file.hcl") && (!ok || syntax.Line == 0) {
			t.Errorf("%s: no place in %v", text, err)
		}
	}
}

// So is what is wrong in a compose file, and in those that it names.
func TestComposeErrors(t *testing.T) {
	others := map[string]string{
		"d/loop.yaml":  "include: [../file.yaml]",
		"d/other.yaml": "services: { base: { extends: { file: ../file.yaml, service: a } } }",
		"d/wrong.yaml": "services: [a]",
		"d/deep.yaml":  "include: [e.yaml]",
	}
	for text, want := range map[string]string{
		"services: { a: { build: { contxt: . } } }":                             `services.a: unknown key "build.contxt"`,
		"services: { a: { build: { context: 5 } } }":                            `services.a.build.context must be a string`,
		"services: { a: { build: { context: [. } } }":                           `file.yaml: `,
		"services: { a: { build: [1] } }":                                       `file.yaml: services.a.build: invalid type []interface {} for build`,
		"services: [a]":                                                         `file.yaml: services must be a mapping`,
		"version: '3'":                                                          `there is nothing to build in it`,
		"- a":                                                                   `file.yaml: the top level must be a mapping`,
		"services: { 1: { build: . } }":                                         `file.yaml: the key 1 at "services" must be a string`,
		"services: { a: 1 }":                                                    `file.yaml: services.a must be a mapping`,
		"services: { a: { image: \"${B?not here}\" } }":                         `file.yaml: error while interpolating services.a.image: required variable B is missing a value: not here`,
		"services: { a: { image: \"${B\" } }":                                   `file.yaml: invalid interpolation format for services.a.image. You may`,
		"services: { a: { build: { no_cache: perhaps } } }":                     `services.a: `,
		"services: { a: { extends: b } }":                                       `file.yaml: service "a" extends "b", which file.yaml does not have`,
		"services: { a: { extends: 1 } }":                                       `file.yaml: service "a": extends must name a service, and a file as text`,
		"services: { a: { extends: b }, b: { extends: a } }":                    `file.yaml: service "a" extends itself, by "a" of file.yaml, "b" of file.yaml`,
		"services: { a: { extends: { service: base, file: d/other.yaml } } }":   `file.yaml: service "a" extends itself, by `,
		"services: { a: { extends: { service: b, file: none.yaml } } }":         `file.yaml: service "a": extends: open none.yaml: file does not exist`,
		"include: [d/loop.yaml]":                                                `d/loop.yaml: include leads back to "file.yaml"`,
		"include: [d/wrong.yaml]":                                               `d/wrong.yaml: services must be a mapping`,
		"include: [d/deep.yaml]":                                                `d/deep.yaml: include: open d/e.yaml: file does not exist`,
		"include: [oci://host/x]":                                               `file.yaml: include: "oci://host/x": can't read other files from here`,
		"include: d":                                                            `file.yaml: include must be a list`,
		"include: [{ colour: blue }]":                                           `file.yaml: include.0: unknown key "colour"`,
		"services: { a: { build: { dockerfile: a, dockerfile_inline: b } } }":   `services.a: build has both dockerfile and dockerfile_inline`,
		"services: { a: { build: { additional_contexts: { b: service:b } } } }": `services.a: build.additional_contexts.b: there is no service "b" that is built`,
		"services: { a: { build: { secrets: [x] } } }\nsecrets: { x: { external: true } }": `service "a": the secret "x" is external`,
		"a: &a [*a]": `file.yaml: `,
	} {
		_, err := Parse([]File{{Name: "file.yaml", Data: []byte(text)}}, Options{Open: func(name string) ([]byte, error) {
			if data, ok := others[name]; ok {
				return []byte(data), nil
			}
			if name == "file.yaml" {
				return []byte(text), nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}})
		if err == nil || !strings.HasPrefix(err.Error(), "compose file: "+want) {
			t.Errorf("%s:\nhave %v\nwant %s", text, err, want)
		}
	}
}

// The folders of a definition that is elsewhere are there.
func TestRebase(t *testing.T) {
	for _, tt := range []struct{ base, dir, want string }{
		{"", "a", "a"},
		{"https://h/r.git", ".", "https://h/r.git"},
		{"https://h/r.git", "./a/../b", "https://h/r.git#:b"},
		{"https://h/r.git#v1", "a", "https://h/r.git#v1:a"},
		{"https://h/r.git#v1:x", "a/b", "https://h/r.git#v1:x/a/b"},
		{"https://h/r.git?ref=v1&subdir=x", "a", "https://h/r.git?ref=v1&subdir=x%2Fa"},
		{"git@h:o/r.git", "a", "git@h:o/r.git#:a"},
		{"github.com/o/r", "a", "github.com/o/r#:a"},
		{"https://h/r.git", "/a", "https://h/r.git#:a"},
		{"https://h/r.git", "cwd://a", "cwd://a"},
		{"https://h/r.git", "docker-image://a", "docker-image://a"},
		{"https://h/r.git", "target:other", "target:other"},
		{"https://h/r.git", "https://h/other.git", "https://h/other.git"},
		{"https://h/r.git", "a/../..", ""},
		{"https://h/r.tar", "a", ""},
		{"https://h/r.tar", ".", "https://h/r.tar"},
	} {
		dir := tt.dir
		p := &Plan{Targets: map[string]*Target{"default": {Context: &dir, Contexts: map[string]string{"x": tt.dir}}}}
		err := p.Rebase(tt.base)
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s in %s is taken", tt.dir, tt.base)
			}
			continue
		}
		have := p.Targets["default"]
		if err != nil || *have.Context != tt.want || have.Contexts["x"] != tt.want {
			t.Errorf("%s in %s: have %s %s %v, want %s", tt.dir, tt.base, *have.Context, have.Contexts["x"], err, tt.want)
		}
	}
}

// No file and no --set brings it down; what can be read can be resolved, or says why not.
func FuzzParse(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if file.Name != "want.json" {
				f.Add(filepath.Base(file.Name), file.Data, "*.args.A=1")
			}
		}
	}
	f.Add("a.hcl", []byte(`target "default" { output = ["type=local,dest=x"] }`), "def*.output=type=tar,dest=-")
	f.Add("a.json", []byte(`{"target": {"default": {}}}`), "default.secret+=id=a,src=b")
	f.Add("a.yaml", []byte("services: { a: { build: !override . } }"), "a.contexts.x=target:a")
	f.Fuzz(func(t *testing.T, name string, data []byte, set string) {
		d, err := Parse([]File{{Name: name, Data: data}}, Options{Open: func(string) ([]byte, error) { return data, nil }})
		if err != nil {
			return
		}
		plan, err := d.Resolve(nil, []string{set})
		if err != nil {
			return
		}
		if _, err := json.Marshal(plan); err != nil {
			t.Error(err)
		}
	})
}

// Files beyond the working folder, and what reaches further than a build, need leave.
func TestMissing(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cwd := filepath.Join(root, "cwd")
	for _, dir := range []string{cwd, filepath.Join(root, "cwd-beside")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..", filepath.Join(cwd, "up")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(cwd)
	const definition = `
target "default" {
  context = "up/cwd-beside"
  dockerfile = "cwd://Dockerfile"
  contexts = { image = "docker-image://x", git = "https://host/x.git", here = ".", layout = "oci-layout:///layouts/x:tag" }
  secret = ["id=a,src=inside", "id=b,src=/outside/b", "id=c,env=C"]
  ssh = ["default", "key=/keys/k"]
  output = ["type=local,dest=../out", "type=tar,dest=-", "type=oci,dest=in/side.tar"]
  cache-from = ["type=local,src=/cache", "name"]
  cache-to = ["type=local,dest=cache"]
  network = "host"
  entitlements = ["device=gpu", "security.insecure"]
}`
	for allow, want := range map[string]string{
		"": "device=gpu fs.read=/cache fs.read=/keys/k fs.read=/layouts/x fs.read=/outside/b fs.read=up/cwd-beside " +
			"fs.write=../out network.host security.insecure ssh",
		"fs=.. device ssh network.host":                   "fs.read=/cache fs.read=/keys/k fs.read=/layouts/x fs.read=/outside/b security.insecure",
		"fs.read=* fs.write=../out security.insecure":     "device=gpu network.host ssh",
		"fs=* device=gpu ssh network.host image.push=a/b": "security.insecure",
	} {
		d, err := Parse([]File{{Name: "a.hcl", Data: []byte(definition)}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := d.Resolve(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		have, err := plan.Missing(strings.Fields(allow), cwd, true)
		if err != nil {
			t.Fatal(err)
		}
		wanted := strings.Fields(want)
		if !slices.Equal(have, wanted) {
			t.Errorf("--allow %s:\nhave %s\nwant %s", allow, have, wanted)
		}
	}
	d, err := Parse([]File{{Name: "a.hcl", Data: []byte(definition)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := d.Resolve(nil, []string{"*.secret.b=src=/else", "*.output=/out", "*.entitlements=device=gpu"})
	if err != nil {
		t.Fatal(err)
	}
	have, err := plan.Missing(nil, cwd, true) // what --set names is granted
	want := []string{"fs.read=/cache", "fs.read=/keys/k", "fs.read=/layouts/x", "fs.read=up/cwd-beside", "network.host", "security.insecure", "ssh"}
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("have %s %v\nwant %s", have, err, want)
	}
	if _, err := plan.Missing([]string{"everything"}, cwd, true); err == nil {
		t.Error("--allow everything was taken")
	}
}
