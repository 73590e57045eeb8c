package bake

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/override"
	"github.com/compose-spec/compose-go/v2/paths"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/transform"
	"github.com/compose-spec/compose-go/v2/tree"
)

// composeReader reads of compose files what matters for a build. It puts compose-go's
// parts together as compose-go's loader does. The loader itself is not linked: the JSON
// schemas that come with it are parsed whenever the program starts, for 9 ms.
type composeReader struct {
	env    map[string]string // what is interpolated
	dir    string            // folder that what is included is in; "" is the working folder
	inside []string          // files that include this one, to find cycles
	open   func(name string) ([]byte, error)
	opened *int // files so far
	notice func(string)
}

// read lays files over each other.
func (r *composeReader) read(files []File) (map[string]any, error) {
	model := map[string]any{}
	for _, f := range files {
		var err error
		if model, err = r.layFile(model, f); err != nil {
			return nil, err
		}
	}
	return transform.SetDefaultValues(model)
}

// layFile lays the documents of a file over model.
func (r *composeReader) layFile(model map[string]any, f File) (map[string]any, error) {
	docs, err := composeDocuments(f.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	for _, doc := range docs {
		if model, err = r.lay(model, f.Name, doc); err != nil {
			return nil, err
		}
	}
	return model, nil
}

// lay lays a document over model.
func (r *composeReader) lay(model map[string]any, file string, doc *composeDocument) (map[string]any, error) {
	layer, err := r.interpolate(doc.values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if layer, err = buildPart(layer); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := r.include(layer, file, doc.replaced); err != nil {
		return nil, err
	}
	drop(model, doc.replaced, tree.NewPath())
	if err := r.extend(layer, file, doc.replaced); err != nil {
		return nil, err
	}
	merged, err := override.Merge(model, layer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if merged, err = canonical(merged); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return merged, nil
}

// canonical spells a model out: no short forms, nothing twice.
func canonical(model map[string]any) (map[string]any, error) {
	model, err := override.EnforceUnicity(model)
	if err != nil {
		return nil, err
	}
	if model, err = transform.Canonical(model, false); err != nil {
		return nil, err
	}
	return override.EnforceUnicity(model)
}

func (r *composeReader) interpolate(values map[string]any) (map[string]any, error) {
	out, err := interpolation.Interpolate(values, interpolation.Options{
		LookupValue: func(name string) (string, bool) { v, ok := r.env[name]; return v, ok },
		Substitute: func(text string, value template.Mapping) (string, error) {
			return template.SubstituteWithOptions(text, value, template.WithoutLogging, template.WithReplacementFunction(r.replace))
		},
	})
	return out, oneLine(err)
}

// replace is the value of a variable, as compose has it, and tells of one that has none.
func (r *composeReader) replace(text string, value template.Mapping, c *template.Config) (string, error) {
	out, known, err := template.DefaultReplacementAppliedFunc(text, value, c)
	if err == nil && !known && r.notice != nil {
		r.notice(fmt.Sprintf("the variable %q is not set: it is left empty", strings.Trim(text, "${}")))
	}
	return out, err
}

// buildPart are the parts of a compose file that say what is built, each of the kind that
// the parts of compose-go rely on. The rest may be of any version, or wrong.
func buildPart(doc map[string]any) (map[string]any, error) {
	part := map[string]any{}
	for _, key := range []string{"services", "secrets"} {
		if doc[key] == nil {
			continue
		}
		named, ok := doc[key].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s must be a mapping", key)
		}
		part[key] = named
	}
	services, _ := part["services"].(map[string]any)
	for name, s := range services {
		service, ok := s.(map[string]any)
		if !ok && s != nil {
			return nil, fmt.Errorf("services.%s must be a mapping", name)
		}
		kept := map[string]any{}
		for _, key := range []string{"image", "build", "environment", "env_file", "extends"} {
			if v, ok := service[key]; ok {
				kept[key] = v
			}
		}
		services[name] = kept
	}
	if include, ok := doc["include"]; ok {
		part["include"] = include
	}
	return part, nil
}

// rebase has the paths of a model that is in dir relative to where the files are read from.
func rebase(model map[string]any, dir string) error {
	if err := checkPaths(model); err != nil {
		return err
	}
	return paths.ResolveRelativePaths(model, dir, nil)
}

// checkPaths finds what is no path where compose-go takes it for one.
func checkPaths(model map[string]any) error {
	patterns := []tree.Path{
		"services.*.build.context", "services.*.build.additional_contexts.*",
		"services.*.env_file.*.path", "services.*.extends.file", "secrets.*.file",
	}
	const keys = tree.Path("services.*.build.ssh.*") // null is the agent
	var check func(v any, at tree.Path) error
	check = func(v any, at tree.Path) error {
		_, ok := v.(string)
		if !ok && (slices.ContainsFunc(patterns, at.Matches) || v != nil && at.Matches(keys)) {
			return fmt.Errorf("%s must be a string", at)
		}
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				if err := check(v[k], at.Next(k)); err != nil {
					return err
				}
			}
		case []any:
			for _, e := range v {
				if err := check(e, at.Next(tree.PathMatchList)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return check(model, tree.NewPath())
}

// within is where a file is that another one names: as it is opened.
func (r *composeReader) within(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.dir, name)
}
