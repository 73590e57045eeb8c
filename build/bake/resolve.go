package bake

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Plan is what is to be built. Its JSON is the output of bake --print.
type Plan struct {
	Groups  map[string]*Group  `json:"group,omitempty"`
	Targets map[string]*Target `json:"target"`

	granted access // by --set
}

// NoTargetError says that a definition has no target, and no group, of a name.
type NoTargetError struct {
	Name string
}

func (e *NoTargetError) Error() string { return fmt.Sprintf("failed to find target %q", e.Name) }

// targetPrefix marks a context that is the result of another target.
const targetPrefix = "target:"

// Resolve returns the targets that names stand for: targets, groups and patterns of
// either; none is "default". Overrides are those of --set: "TARGET.KEY=VALUE", where
// TARGET may be a pattern. A target that others only link to is among them, with no
// output but the build cache.
func (d *Definition) Resolve(names, overrides []string) (*Plan, error) {
	if len(names) == 0 {
		names = []string{"default"}
	}
	sets, err := d.readSets(overrides)
	if err != nil {
		return nil, err
	}
	r := &resolver{d: d, sets: sets, plan: &Plan{Groups: map[string]*Group{}, Targets: map[string]*Target{}}}
	var wanted []string
	for _, name := range names {
		matched, err := d.match(strings.ReplaceAll(name, ".", "_")) // as services of compose files are called
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, matched...)
	}
	wanted = distinct(wanted)
	for _, name := range wanted {
		if err := r.add(name, nil); err != nil {
			return nil, err
		}
	}
	r.addDefault(wanted)
	for _, name := range slices.Sorted(maps.Keys(r.plan.Targets)) {
		if err := r.link(name, nil); err != nil {
			return nil, err
		}
	}
	return r.plan, nil
}

// match are the groups and targets that a pattern fits.
func (d *Definition) match(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[]") {
		return []string{pattern}, nil
	}
	var names []string
	for _, g := range d.Groups {
		names = append(names, g.Name)
	}
	names, err := matching(pattern, append(names, d.targetNames()...))
	if err == nil && len(names) == 0 {
		err = &NoTargetError{Name: pattern}
	}
	return names, err
}

func (d *Definition) targetNames() []string {
	var names []string
	for _, t := range d.Targets {
		names = append(names, t.Name)
	}
	return names
}

func matching(pattern string, names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		ok, err := path.Match(pattern, n)
		if err != nil {
			return nil, fmt.Errorf("invalid pattern %q: %w", pattern, err)
		}
		if ok {
			out = append(out, n)
		}
	}
	return out, nil
}

type resolver struct {
	d    *Definition
	sets map[string][]set
	plan *Plan
}

// add takes a target or the members of a group into the plan.
func (r *resolver) add(name string, above []string) error {
	g := r.d.group(name)
	if g == nil || slices.Contains(above, name) { // a group may have a target of its own name
		_, err := r.target(name)
		return err
	}
	r.plan.Groups[name] = &Group{Name: g.Name, Description: g.Description, Targets: slices.Clone(g.Targets)}
	for _, member := range g.Targets {
		if err := r.add(member, append(above[:len(above):len(above)], name)); err != nil {
			return err
		}
	}
	return nil
}

// addDefault has the group default say what was asked for, as bake --print shows it.
func (r *resolver) addDefault(wanted []string) {
	g, ok := r.plan.Groups["default"]
	if !ok {
		g = &Group{Name: "default"}
		r.plan.Groups["default"] = g
	}
	for _, name := range wanted {
		if name != "default" || !ok {
			g.Targets = append(g.Targets, name)
		}
	}
	g.Targets = distinct(g.Targets)
	slices.Sort(g.Targets)
}

// target resolves a target, once.
func (r *resolver) target(name string) (*Target, error) {
	if t, ok := r.plan.Targets[name]; ok {
		return t, nil
	}
	t, err := r.inherit(name, nil)
	if err != nil {
		return nil, err
	}
	t.Inherits = nil
	if t.Context == nil {
		t.Context = ptr(".")
	}
	if t.Dockerfile == nil || *t.Dockerfile == "" {
		t.Dockerfile = ptr("Dockerfile")
	}
	r.plan.Targets[name] = t
	return t, nil
}

// inherit lays a target over those that it inherits from, and --set over that.
func (r *resolver) inherit(name string, below []string) (*Target, error) {
	own := r.d.target(name)
	if own == nil {
		return nil, &NoTargetError{Name: name}
	}
	t := &Target{Name: name}
	if !slices.Contains(below, name) {
		for _, parent := range own.Inherits {
			p, err := r.inherit(parent, append(below[:len(below):len(below)], name))
			if err != nil {
				return nil, err
			}
			t.Merge(p)
		}
	}
	t.Merge(own)
	for _, s := range r.sets[name] {
		if err := s.apply(t, &r.plan.granted); err != nil {
			return nil, fmt.Errorf("--set %q: %w", s.text, err)
		}
	}
	t.tidy()
	return t, nil
}

// Links are the targets whose results a target has as contexts.
func (t *Target) Links() []string {
	var names []string
	for _, v := range t.Contexts {
		if name, ok := strings.CutPrefix(v, targetPrefix); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return distinct(names)
}

// link takes the targets that a target links to into the plan.
func (r *resolver) link(name string, above []string) error {
	t := r.plan.Targets[name]
	above = append(above[:len(above):len(above)], name)
	for _, to := range t.Links() {
		if slices.Contains(above, to) {
			return fmt.Errorf("target %q: its contexts lead back to itself, by %q", to, name)
		}
		_, asked := r.plan.Targets[to]
		other, err := r.target(to)
		if err != nil {
			return fmt.Errorf("target %q: %w", name, err)
		}
		if !asked {
			other.Outputs = List[outputForm]{{"type": "cacheonly"}}
		}
		if err := r.link(to, above); err != nil {
			return err
		}
		t.Entitlements = distinct(join(t.Entitlements, other.Entitlements))
		for _, p := range t.Platforms {
			if len(t.Platforms) > 1 && len(other.Platforms) > 1 && !slices.Contains(other.Platforms, p) {
				return fmt.Errorf("target %q is for platform %s, and %q that it links to is not", name, p, to)
			}
		}
	}
	return nil
}
