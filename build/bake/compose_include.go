package bake

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
)

// include brings into layer what its files define that it includes: what layer says of a
// service goes over that.
// https://docs.docker.com/reference/compose-file/include/
func (r *composeReader) include(layer map[string]any, file string, replaced []tree.Path) error {
	entries, ok := layer["include"].([]any)
	if !ok && layer["include"] != nil {
		return fmt.Errorf("%s: include must be a list", file)
	}
	delete(layer, "include")
	for i, entry := range entries {
		if name, ok := entry.(string); ok {
			entry = map[string]any{"path": name}
		}
		var c types.IncludeConfig
		if err := decodeStrictly(entry, &c); err != nil {
			return fmt.Errorf("%s: include.%d: %w", file, i, err)
		}
		if len(c.Path) == 0 {
			return fmt.Errorf("%s: include.%d: path is missing", file, i)
		}
		model, err := r.included(c, file)
		if err != nil {
			return err
		}
		if err := bringIn(layer, model, replaced); err != nil {
			return fmt.Errorf("%s: include %q: %w", file, c.Path[0], err)
		}
	}
	return nil
}

// included reads the files of an entry, which have their own folder and environment.
func (r *composeReader) included(c types.IncludeConfig, file string) (map[string]any, error) {
	main := r.within(c.Path[0])
	inside := append(slices.Clone(r.inside), file)
	if slices.Contains(inside, main) {
		return nil, fmt.Errorf("%s: include leads back to %q", file, main)
	}
	dir := filepath.Dir(c.Path[0]) // as seen from this one
	if c.ProjectDirectory != "" {
		dir = c.ProjectDirectory
	}
	inner := &composeReader{dir: r.within(dir), inside: inside, open: r.open, opened: r.opened, notice: r.notice}
	var err error
	if inner.env, err = r.includedEnv(c.EnvFile, dir); err != nil {
		return nil, err
	}
	var files []File
	for _, name := range c.Path {
		data, err := r.openFile(name)
		if err != nil {
			return nil, fmt.Errorf("%s: include: %w", file, err)
		}
		files = append(files, File{Name: r.within(name), Data: data})
	}
	model, err := inner.read(files)
	if err != nil {
		return nil, err
	}
	return model, rebase(model, dir)
}

// includedEnv is the environment with what the files say that an entry names, or .env in
// its folder, where this one says nothing.
func (r *composeReader) includedEnv(files []string, dir string) (map[string]string, error) {
	named := make([]string, 0, len(files)+1)
	for _, name := range files {
		if name != "/dev/null" {
			named = append(named, name)
		}
	}
	if len(files) == 0 {
		named = append(named, filepath.Join(dir, ".env"))
	}
	env := maps.Clone(r.env)
	fromFiles := map[string]string{}
	for _, name := range named {
		data, err := r.openFile(name)
		if len(files) == 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoFiles)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		values, err := dotenv.ParseWithLookup(bytes.NewReader(data), func(k string) (string, bool) { v, ok := r.env[k]; return v, ok })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		maps.Copy(fromFiles, values)
	}
	for k, v := range fromFiles {
		if _, set := env[k]; !set {
			env[k] = v
		}
	}
	return env, nil
}

// maxComposeFiles bounds the files that compose files name, each as often as it is named.
const maxComposeFiles = 1000

var errNoFiles = errors.New("can't read other files from here")

// openFile reads a file by the name that another one has for it.
func (r *composeReader) openFile(name string) ([]byte, error) {
	if strings.Contains(name, "://") || strings.HasPrefix(name, "git@") || r.open == nil {
		return nil, fmt.Errorf("%q: %w", name, errNoFiles)
	}
	if *r.opened++; *r.opened > maxComposeFiles {
		return nil, fmt.Errorf("%q: too many files name others", name)
	}
	return r.open(r.within(name))
}

// bringIn adds what was included.
func bringIn(layer, included map[string]any, replaced []tree.Path) error {
	for _, key := range []string{"services", "secrets"} {
		from, _ := included[key].(map[string]any)
		to, _ := layer[key].(map[string]any)
		if to == nil {
			to = map[string]any{}
		}
		for name, v := range from {
			own, ok := to[name]
			if !ok || reflect.DeepEqual(own, v) {
				to[name] = v
				continue
			}
			drop(map[string]any{key: map[string]any{name: v}}, replaced, tree.NewPath())
			merged, err := override.MergeYaml(v, own, tree.NewPath(key, name))
			if err != nil {
				return err
			}
			to[name] = merged
		}
		if len(to) > 0 {
			layer[key] = to
		}
	}
	return nil
}

// extend lays each service that extends another one over that.
// https://docs.docker.com/reference/compose-file/services/#extends
func (r *composeReader) extend(layer map[string]any, file string, replaced []tree.Path) error {
	services, _ := layer["services"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(services)) {
		e := extension{composeReader: r, file: file, services: services, replaced: replaced}
		if _, err := e.resolve(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// extension resolves what the services of one file extend.
type extension struct {
	*composeReader
	file     string
	services map[string]any
	replaced []tree.Path
}

func (e extension) resolve(name string, seen []string) (map[string]any, error) {
	service, _ := e.services[name].(map[string]any)
	if service["extends"] == nil {
		return service, nil
	}
	at := fmt.Sprintf("%q of %s", name, e.file)
	if slices.Contains(seen, at) {
		return nil, fmt.Errorf("%s: service %q extends itself, by %s", e.file, name, strings.Join(seen, ", "))
	}
	seen = append(slices.Clone(seen), at)
	ref, other, err := extends(service["extends"])
	if err != nil {
		return nil, fmt.Errorf("%s: service %q: %w", e.file, name, err)
	}
	from := e
	if other != "" {
		if from, err = e.another(other); err != nil {
			return nil, fmt.Errorf("%s: service %q: extends: %w", e.file, name, err)
		}
	}
	if _, ok := from.services[ref]; !ok {
		return nil, fmt.Errorf("%s: service %q extends %q, which %s does not have", e.file, name, ref, from.file)
	}
	base, err := from.resolve(ref, seen)
	if err != nil {
		return nil, err
	}
	base = clone(base).(map[string]any)
	drop(map[string]any{"services": map[string]any{name: base}}, e.replaced, tree.NewPath())
	merged, err := override.ExtendService(base, service)
	if err != nil {
		return nil, fmt.Errorf("%s: service %q: %w", e.file, name, err)
	}
	delete(merged, "extends")
	e.services[name] = merged
	return merged, nil
}

// extends reads the short and the long form.
func extends(v any) (service, file string, err error) {
	if name, ok := v.(string); ok {
		return name, "", nil
	}
	long, _ := v.(map[string]any)
	service, ok := long["service"].(string)
	file, isText := long["file"].(string)
	if !ok || long["file"] != nil && !isText {
		return "", "", errors.New("extends must name a service, and a file as text")
	}
	return service, file, nil
}

// another reads the services of another file, with their paths as seen from this one.
func (e extension) another(name string) (extension, error) {
	file := e.within(name)
	data, err := e.openFile(name)
	if err != nil {
		return extension{}, err
	}
	out := extension{composeReader: e.composeReader, file: file}
	model := map[string]any{}
	docs, err := composeDocuments(data)
	for _, doc := range docs {
		var layer map[string]any
		if layer, err = e.interpolate(doc.values); err == nil {
			layer, err = buildPart(layer)
		}
		if err != nil {
			break
		}
		delete(layer, "include") // compose does not look at it either
		if model, err = override.Merge(model, layer); err == nil {
			model, err = canonical(model)
		}
		if err != nil {
			break
		}
		out.replaced = doc.replaced
	}
	if err != nil {
		return extension{}, fmt.Errorf("%s: %w", file, err)
	}
	out.services, _ = model["services"].(map[string]any)
	return out, rebase(model, filepath.Dir(name))
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = clone(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = clone(e)
		}
		return out
	}
	return v
}
