package bake

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// set is one --set: a value for a key of a target.
type set struct {
	text   string // as it was typed
	key    string
	sub    string // "NAME" of arg.NAME
	value  string
	append bool
	first  bool // of those that set the same list
}

// singular are the names that keys have besides their own.
func singular(key string) string {
	switch key {
	case "annotations", "args", "entitlements", "extra-hosts", "labels", "platforms", "resources", "secrets", "tags", "ulimits":
		return strings.TrimSuffix(key, "s")
	}
	return key
}

// named are the keys that need a name behind them.
func named(key string) bool {
	return slices.Contains([]string{"arg", "contexts", "label", "extra-host", "resource"}, key)
}

// readSets reads what --set takes, and finds the targets it is for.
func (d *Definition) readSets(overrides []string) (map[string][]set, error) {
	sets := map[string][]set{}
	for _, text := range overrides {
		left, value, valued := strings.Cut(text, "=")
		left, added := strings.CutSuffix(left, "+")
		parts := strings.SplitN(left, ".", 3)
		if len(parts) < 2 {
			return nil, fmt.Errorf("invalid --set %q: want TARGET.KEY=VALUE", text)
		}
		s := set{text: text, key: singular(parts[1]), value: value, append: added}
		if len(parts) == 3 {
			s.sub = parts[2]
		}
		if err := s.check(valued); err != nil {
			return nil, fmt.Errorf("invalid --set %q: %w", text, err)
		}
		names := []string{parts[0]}
		if d.target(parts[0]) == nil {
			var err error
			if names, err = matching(parts[0], d.targetNames()); err != nil {
				return nil, err
			}
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("--set %q: %w", text, &NoTargetError{Name: parts[0]})
		}
		for _, name := range names {
			one := s
			one.first = !slices.ContainsFunc(sets[name], func(o set) bool { return o.key == s.key && o.sub == s.sub })
			sets[name] = append(sets[name], one)
		}
	}
	return sets, nil
}

func (s set) check(valued bool) error {
	switch {
	case !valued:
		return errors.New("want TARGET.KEY=VALUE")
	case named(s.key) && s.sub == "":
		return fmt.Errorf("%s needs a name: %s.NAME=VALUE", s.key, s.key)
	case !named(s.key) && s.key != "secret" && s.sub != "":
		return fmt.Errorf("%s has no subkeys", s.key)
	case s.append && (named(s.key) || s.sub != ""):
		return fmt.Errorf("%s can't be appended to", s.key)
	}
	return nil
}

// apply changes a target. What the command line itself names is granted.
func (s set) apply(t *Target, granted *access) error {
	if ok, err := s.applyText(t); ok || err != nil {
		return err
	}
	if ok := s.applyTexts(t, granted); ok {
		return nil
	}
	return s.applyEntries(t, granted)
}

// applyText sets what is one value, or one of a map.
func (s set) applyText(t *Target) (done bool, err error) {
	switch s.key {
	case "context":
		t.Context = &s.value
	case "dockerfile":
		t.Dockerfile = &s.value
	case "dockerfile-inline":
		t.DockerfileInline = &s.value
	case "target":
		t.Target = &s.value
	case "call":
		t.Call = &s.value
	case "network":
		t.NetworkMode = &s.value
	case "shm-size":
		t.ShmSize = &s.value
	case "arg":
		t.Args = with(t.Args, map[string]*string{s.sub: &s.value})
	case "label":
		t.Labels = with(t.Labels, map[string]*string{s.sub: &s.value})
	case "extra-host":
		t.ExtraHosts = with(t.ExtraHosts, map[string]*string{s.sub: &s.value})
	case "contexts":
		t.Contexts = with(t.Contexts, map[string]string{s.sub: s.value})
	case "resource":
		t.Resources = with(t.Resources, map[string]string{s.sub: s.value})
	case "no-cache", "pull", "push", "load":
		return true, s.applySwitch(t)
	default:
		return false, nil
	}
	return true, nil
}

func (s set) applySwitch(t *Target) error {
	on, err := strconv.ParseBool(s.value)
	if err != nil {
		return fmt.Errorf("%s is true or false", s.key)
	}
	switch s.key {
	case "no-cache":
		t.NoCache = &on
	case "pull":
		t.Pull = &on
	case "push":
		t.Outputs = t.pushed(on)
	case "load":
		t.Outputs = t.loaded(on)
	}
	return nil
}

// applyTexts sets a list of plain texts.
func (s set) applyTexts(t *Target, granted *access) bool {
	switch s.key {
	case "tag":
		t.Tags = s.list(t.Tags)
	case "platform":
		t.Platforms = s.list(t.Platforms)
	case "ulimit":
		t.Ulimits = s.list(t.Ulimits)
	case "no-cache-filter":
		t.NoCacheFilter = s.list(t.NoCacheFilter)
	case "annotation":
		t.Annotations = s.added(t.Annotations)
	case "entitlement":
		t.Entitlements = s.added(t.Entitlements)
		granted.allow(s.value)
	default:
		return false
	}
	return true
}

// list replaces a list, but for what an earlier --set of the same key has put there.
func (s set) list(have []string) []string {
	if s.first && !s.append || s.value == "" {
		have = nil
	}
	return distinct(join(have, []string{s.value}))
}

// added adds to a list, which an empty value clears.
func (s set) added(have []string) []string {
	if s.value == "" {
		return nil
	}
	return join(have, []string{s.value})
}

// applyEntries sets a list of entries.
func (s set) applyEntries(t *Target, granted *access) (err error) {
	switch s.key {
	case "output":
		t.Outputs, err = entries(s, t.Outputs, false)
		granted.write = append(granted.write, t.Outputs.fields("dest")...)
	case "cache-from":
		t.CacheFrom, err = entries(s, t.CacheFrom, false)
		granted.read = append(granted.read, t.CacheFrom.fields("src")...)
	case "cache-to":
		t.CacheTo, err = entries(s, t.CacheTo, false)
		granted.write = append(granted.write, t.CacheTo.fields("dest")...)
	case "attest":
		t.Attest, err = entries(s, t.Attest, true)
	case "ssh":
		t.SSH, err = entries(s, t.SSH, false)
		granted.read = append(granted.read, sshPaths(t.SSH)...)
	case "secret":
		if s.sub != "" {
			return s.applySecret(t, granted)
		}
		t.Secrets, err = entries(s, t.Secrets, false)
		granted.read = append(granted.read, t.Secrets.fields("src")...)
	default:
		return fmt.Errorf("unknown key %q", s.key)
	}
	return err
}

func entries[F form](s set, have List[F], add bool) (List[F], error) {
	parsed, err := have.parse([]string{s.value})
	if s.value == "" || s.first && !s.append && !add {
		have = nil
	}
	return join(have, parsed), err
}

// fields are the values that the entries have for a key.
func (l List[F]) fields(key string) []string {
	var out []string
	for _, e := range l {
		if v := e[key]; v != "" {
			out = append(out, v)
		}
	}
	return out
}

// applySecret gives a secret that the target declares another source.
func (s set) applySecret(t *Target, granted *access) error {
	i := slices.IndexFunc(t.Secrets, func(e Entry) bool { return e["id"] == s.sub })
	if i < 0 {
		return fmt.Errorf("the target declares no secret %q", s.sub)
	}
	parsed, err := t.Secrets.parse([]string{s.value})
	if err != nil {
		return err
	}
	e := Entry{}
	if len(parsed) > 0 {
		e = parsed[0]
	}
	e["id"] = s.sub
	t.Secrets = slices.Clone(t.Secrets)
	t.Secrets[i] = e
	granted.read = append(granted.read, t.Secrets[i:i+1].fields("src")...)
	return nil
}

// pushed are the outputs with those that may go to a registry going there, or not.
func (t *Target) pushed(on bool) List[outputForm] {
	var out List[outputForm]
	add := on
	for _, e := range t.Outputs {
		if e["type"] != "docker" {
			add = false
		}
		if e["type"] == "registry" && !on {
			continue
		}
		if e["type"] == "image" {
			e = with(e, Entry{"push": strconv.FormatBool(on)})
		}
		out = append(out, e)
	}
	if add {
		out = append(out, Entry{"type": "image", "push": "true"})
	}
	return out
}

// loaded are the outputs with one that goes to the store, unless that is not wanted: there
// are only others.
func (t *Target) loaded(on bool) List[outputForm] {
	if !on {
		return t.Outputs
	}
	for _, e := range t.Outputs {
		switch {
		case e["type"] == "docker" && e["dest"] == "":
			return t.Outputs
		case !slices.Contains([]string{"docker", "image", "registry", "oci"}, e["type"]):
			return t.Outputs
		}
	}
	return join(t.Outputs, List[outputForm]{{"type": "docker"}})
}
