package bake

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/docker/buildx/bake/hclparser"
	"github.com/docker/buildx/bake/hclparser/gohcl"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// File is one definition. Its name says what it is: .hcl, .json, or .yml and .yaml for
// compose; under any other name the content does.
type File struct {
	Name string
	Data []byte
}

// Options are what a definition sees of its surroundings.
type Options struct {
	Vars    map[string]string // values of variables; they win over the environment
	Builtin map[string]string // variables that a definition can't declare: BAKE_CMD_CONTEXT, BAKE_LOCAL_PLATFORM
	Environ map[string]string // values of variables, and what compose files interpolate
	Dotenv  []byte            // compose's file .env, for what is not in Environ
	Untold  bool              // variables are not looked up in Environ
	Notice  func(string)      // told of what has no effect; may be nil
	// Open reads a file that a compose file includes, or extends a service of. Without it
	// there are none.
	Open func(name string) ([]byte, error)
}

// DefaultFiles are read, those that are there, in this order, where no file is named.
func DefaultFiles() []string {
	return []string{
		"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
		"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl",
	}
}

// Definition is what files define together.
type Definition struct {
	Groups    []*Group
	Targets   []*Target
	variables []*Variable
}

// Variable is a variable of a definition, with its value as text.
type Variable = hclparser.Variable

// Variables are sorted by name.
func (d *Definition) Variables() []*Variable {
	return slices.SortedFunc(slices.Values(d.variables), func(a, b *Variable) int { return strings.Compare(a.Name, b.Name) })
}

// SyntaxError is a definition that can't be read.
type SyntaxError struct {
	File   string
	Line   int
	Reason string
	Err    error
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

func (e *SyntaxError) Unwrap() error { return e.Err }

// Parse reads files and evaluates them. What a later one says of a target is laid over
// what an earlier one says; compose files go before the others. Errors in a file are a
// [*SyntaxError].
func Parse(files []File, o Options) (*Definition, error) {
	d := &Definition{}
	var compose []File
	var others []*hcl.File
	for _, f := range files {
		if isCompose(f, o) {
			compose = append(compose, f)
			continue
		}
		parsed, err := parseHCL(f)
		if err != nil {
			return nil, err
		}
		others = append(others, parsed)
	}
	if len(compose) > 0 {
		if err := d.addCompose(compose, o); err != nil {
			return nil, fmt.Errorf("compose file: %w", err)
		}
	}
	if len(others) > 0 {
		if err := d.addHCL(others, o); err != nil {
			return nil, err
		}
	}
	d.mergeSame()
	return d, nil
}

func parseHCL(f File) (*hcl.File, error) {
	p := hclparse.NewParser()
	switch {
	case strings.HasSuffix(f.Name, ".json"):
		file, diags := p.ParseJSON(f.Data, f.Name)
		return file, syntaxError(diags)
	case strings.HasSuffix(f.Name, ".hcl"):
		file, diags := p.ParseHCL(f.Data, f.Name)
		return file, syntaxError(diags)
	}
	file, diags := p.ParseHCL(f.Data, f.Name)
	if !diags.HasErrors() {
		return file, nil
	}
	if asJSON, wrong := p.ParseJSON(f.Data, f.Name+".json"); !wrong.HasErrors() {
		return asJSON, nil
	}
	return nil, syntaxError(diags)
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("invalid name %q: letters, digits, _ and - are allowed", name)
	}
	return nil
}

func (d *Definition) addHCL(files []*hcl.File, o Options) error {
	for _, f := range files {
		if err := checkAttributes(f.Body, o.Notice); err != nil {
			return err
		}
	}
	all := struct {
		Groups  []*Group  `hcl:"group,block" cty:"group"`
		Targets []*Target `hcl:"target,block" cty:"target"`
	}{d.Groups, d.Targets}
	meta, diags := hclparser.Parse(hclparser.MergeFiles(files), hclparser.Opt{
		LookupVar: func(name string) (string, bool) {
			v, ok := o.Vars[name]
			if !ok && !o.Untold {
				v, ok = o.Environ[name]
			}
			return v, ok
		},
		Vars:          o.Builtin,
		ValidateLabel: checkName,
	}, &all)
	if err := syntaxError(diags); err != nil {
		return err
	}
	d.Groups, d.Targets = all.Groups, all.Targets
	// A target with a matrix becomes a group of those that it makes.
	for _, renamed := range meta.Renamed {
		for name, made := range renamed {
			if made = distinct(made); len(made) != 1 || made[0] != name {
				d.Groups = append(d.Groups, &Group{Name: name, Targets: made})
			}
		}
	}
	d.variables = meta.AllVariables
	return nil
}

// checkAttributes tells of attributes that a target does not have: the parser passes them
// over, as docker does. One that docker has is an error.
func checkAttributes(body hcl.Body, notice func(string)) error {
	content, _, _ := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "target", LabelNames: []string{"name"}}}})
	schema, _ := gohcl.ImpliedBodySchema(&Target{})
	known := []string{"name", "matrix"}
	for _, a := range schema.Attributes {
		known = append(known, a.Name)
	}
	for _, target := range content.Blocks {
		attrs, _ := target.Body.JustAttributes()
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			at := attrs[name].NameRange
			switch {
			case name == "policy":
				return &SyntaxError{File: at.Filename, Line: at.Start.Line, Reason: "policy is not supported: it needs an interpreter that is not linked in"}
			case !slices.Contains(known, name) && notice != nil:
				notice(fmt.Sprintf("%s:%d: a target has no attribute %q", at.Filename, at.Start.Line, name))
			}
		}
	}
	return nil
}

// syntaxError is the first error of those that HCL's parser has found.
func syntaxError(diags hcl.Diagnostics) error {
	for _, diag := range diags {
		if diag.Severity != hcl.DiagError {
			continue
		}
		reason := strings.TrimSuffix(diag.Summary, ".")
		if diag.Detail != "" {
			reason += ": " + strings.TrimSuffix(diag.Detail, ".")
		}
		reason = strings.Join(strings.Fields(reason), " ")
		if diag.Subject == nil {
			return errors.New(reason)
		}
		return &SyntaxError{File: diag.Subject.Filename, Line: diag.Subject.Start.Line, Reason: reason, Err: diags}
	}
	return nil
}

// mergeSame makes one of the groups and targets of one name.
func (d *Definition) mergeSame() {
	var groups []*Group
	for _, g := range d.Groups {
		i := slices.IndexFunc(groups, func(other *Group) bool { return other.Name == g.Name })
		if i < 0 {
			groups = append(groups, &Group{Name: g.Name, Description: g.Description, Targets: distinct(g.Targets)})
			continue
		}
		groups[i].Targets = distinct(join(groups[i].Targets, g.Targets))
	}
	var targets []*Target
	for _, t := range d.Targets {
		if i := slices.IndexFunc(targets, func(other *Target) bool { return other.Name == t.Name }); i >= 0 {
			targets[i].Merge(t)
			continue
		}
		targets = append(targets, t)
	}
	d.Groups, d.Targets = groups, targets
}

func (d *Definition) group(name string) *Group {
	for _, g := range d.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

func (d *Definition) target(name string) *Target {
	for _, t := range d.Targets {
		if t.Name == name {
			return t
		}
	}
	return nil
}
