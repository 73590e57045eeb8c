package bake

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// networkHost is what a target with the network of the host asks for.
const networkHost = "network.host"

// access is what targets may do besides building from what is below the working folder.
type access struct {
	words       []string // "network.host", "security.insecure", "ssh", "device=NAME", ...
	read, write []string // paths; "*" is all
}

// allow reads what --allow takes.
func (a *access) allow(s string) {
	key, value, _ := strings.Cut(s, "=")
	switch key {
	case "fs":
		a.read, a.write = append(a.read, value), append(a.write, value)
	case "fs.read":
		a.read = append(a.read, value)
	case "fs.write":
		a.write = append(a.write, value)
	default:
		a.words = append(a.words, s)
	}
}

// Missing is what the targets ask for and nobody has allowed, in the words of --allow:
// "network.host", "security.insecure", "device=NAME", "ssh", "fs.read=PATH",
// "fs.write=PATH". Files below the folder cwd, and what --set itself names, are allowed.
// Without files, only the first three are looked for.
func (p *Plan) Missing(allowed []string, cwd string, files bool) ([]string, error) {
	have := access{
		words: slices.Clone(p.granted.words),
		read:  append(slices.Clone(p.granted.read), cwd), write: append(slices.Clone(p.granted.write), cwd),
	}
	for _, s := range allowed {
		if err := checkAllow(s); err != nil {
			return nil, err
		}
		have.allow(s)
	}
	var wants []string
	want := access{}
	for _, t := range p.Targets {
		t.wants(&want)
	}
	for _, word := range want.words {
		key, _, _ := strings.Cut(word, "=")
		if word == "ssh" && !files || slices.Contains(have.words, word) || slices.Contains(have.words, key) {
			continue
		}
		wants = append(wants, word)
	}
	if files {
		for _, path := range outside(want.read, have.read) {
			wants = append(wants, "fs.read="+path)
		}
		for _, path := range outside(want.write, have.write) {
			wants = append(wants, "fs.write="+path)
		}
	}
	slices.Sort(wants)
	return slices.Compact(wants), nil
}

func checkAllow(s string) error {
	key, _, _ := strings.Cut(s, "=")
	known := []string{
		networkHost, "security.insecure", "device", "ssh", "fs", "fs.read", "fs.write",
		"image", "image.push", "image.load", "buildx.local.delete",
	}
	if !slices.Contains(known, key) {
		return fmt.Errorf("invalid --allow %q: there is %s", s, strings.Join(known, ", "))
	}
	return nil
}

// wants adds what a target asks for.
func (t *Target) wants(a *access) {
	a.words = append(a.words, t.Entitlements...)
	for _, path := range append([]string{*t.Context, t.DockerfilePath()}, contextFolders(t.Contexts)...) {
		if isLocal(path) {
			a.read = append(a.read, strings.TrimPrefix(path, cwdPrefix))
		}
	}
	a.read = append(a.read, t.Secrets.fields("src")...)
	a.read = append(a.read, sshPaths(t.SSH)...)
	for _, e := range t.SSH {
		if e["paths"] == "" {
			a.words = append(a.words, "ssh")
		}
	}
	a.read = append(a.read, ofType(t.CacheFrom, "local").fields("src")...)
	a.write = append(a.write, ofType(t.CacheTo, "local").fields("dest")...)
	for _, dest := range t.Outputs.fields("dest") {
		if dest != "-" {
			a.write = append(a.write, dest)
		}
	}
}

// cwdPrefix marks a path that is one of this machine, wherever the definition is from.
const cwdPrefix = "cwd://"

// DockerfilePath is where the Dockerfile is; "" if the target has it inline. A path below
// a context that is a folder is joined with it.
func (t *Target) DockerfilePath() string {
	if t.DockerfileInline != nil {
		return ""
	}
	file := *t.Dockerfile
	if local, ok := strings.CutPrefix(file, cwdPrefix); ok {
		return local
	}
	if !isLocal(file) || !isLocal(*t.Context) || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(strings.TrimPrefix(*t.Context, cwdPrefix), file)
}

// ContextPath is the context without the mark that it is local.
func (t *Target) ContextPath() string {
	if *t.Context == cwdPrefix {
		return "."
	}
	return strings.TrimPrefix(*t.Context, cwdPrefix)
}

// contextFolders are the paths among named contexts.
func contextFolders(contexts map[string]string) []string {
	var paths []string
	for _, v := range contexts {
		layout, isLayout := strings.CutPrefix(v, "oci-layout://")
		if isLayout {
			layout, _, _ = strings.Cut(layout, "@")
			if i := strings.LastIndexByte(layout, ':'); i > strings.LastIndexByte(layout, '/') {
				layout = layout[:i]
			}
			paths = append(paths, layout)
		} else if isLocal(v) {
			paths = append(paths, v)
		}
	}
	return paths
}

func isLocal(path string) bool {
	return path != "" && !strings.HasPrefix(path, targetPrefix) && !strings.HasPrefix(path, "docker-image:") &&
		!strings.HasPrefix(path, "git@") && !strings.HasPrefix(path, "github.com/") && (strings.HasPrefix(path, cwdPrefix) || !strings.Contains(path, "://"))
}

func sshPaths(keys List[sshForm]) []string {
	var paths []string
	for _, list := range keys.fields("paths") {
		paths = append(paths, strings.Split(list, ",")...)
	}
	return paths
}

func ofType[F form](l List[F], kind string) List[F] {
	return slices.DeleteFunc(slices.Clone(l), func(e Entry) bool { return e["type"] != kind })
}

// outside are the paths that are in none of the folders.
func outside(paths, folders []string) []string {
	if slices.Contains(folders, "*") {
		return nil
	}
	var out []string
	for _, p := range paths {
		real := resolved(p)
		if !slices.ContainsFunc(folders, func(dir string) bool {
			rel, err := filepath.Rel(resolved(dir), real)
			return err == nil && filepath.IsLocal(rel)
		}) {
			out = append(out, p)
		}
	}
	return out
}

// resolved follows the links of as much of a path as there is.
func resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	rest := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		} else if _, lost := os.Lstat(dir); lost == nil || dir == filepath.Dir(dir) {
			return abs // a link to nowhere
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}
