package bake

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Group is a name for several targets, or groups.
type Group struct {
	Name        string   `json:"-" hcl:"name,label" cty:"name"`
	Description string   `json:"description,omitempty" hcl:"description,optional" cty:"description"`
	Targets     []string `json:"targets" hcl:"targets" cty:"targets"`
}

// Target is one build. Its JSON is that of bake --print.
type Target struct {
	Name        string `json:"-" hcl:"name,label" cty:"name"`
	Description string `json:"description,omitempty" hcl:"description,optional" cty:"description"`

	Inherits []string `json:"inherits,omitempty" hcl:"inherits,optional" cty:"inherits"`

	Annotations      []string           `json:"annotations,omitempty" hcl:"annotations,optional" cty:"annotations"`
	Attest           List[attestForm]   `json:"attest,omitempty" hcl:"attest,optional" cty:"attest"`
	Context          *string            `json:"context,omitempty" hcl:"context,optional" cty:"context"`
	Contexts         map[string]string  `json:"contexts,omitempty" hcl:"contexts,optional" cty:"contexts"`
	Dockerfile       *string            `json:"dockerfile,omitempty" hcl:"dockerfile,optional" cty:"dockerfile"`
	DockerfileInline *string            `json:"dockerfile-inline,omitempty" hcl:"dockerfile-inline,optional" cty:"dockerfile-inline"`
	Args             map[string]*string `json:"args,omitempty" hcl:"args,optional" cty:"args"`
	Labels           map[string]*string `json:"labels,omitempty" hcl:"labels,optional" cty:"labels"`
	Tags             []string           `json:"tags,omitempty" hcl:"tags,optional" cty:"tags"`
	CacheFrom        List[cacheForm]    `json:"cache-from,omitempty" hcl:"cache-from,optional" cty:"cache-from"`
	CacheTo          List[cacheForm]    `json:"cache-to,omitempty" hcl:"cache-to,optional" cty:"cache-to"`
	Target           *string            `json:"target,omitempty" hcl:"target,optional" cty:"target"`
	Secrets          List[secretForm]   `json:"secret,omitempty" hcl:"secret,optional" cty:"secret"`
	SSH              List[sshForm]      `json:"ssh,omitempty" hcl:"ssh,optional" cty:"ssh"`
	Platforms        []string           `json:"platforms,omitempty" hcl:"platforms,optional" cty:"platforms"`
	Outputs          List[outputForm]   `json:"output,omitempty" hcl:"output,optional" cty:"output"`
	Pull             *bool              `json:"pull,omitempty" hcl:"pull,optional" cty:"pull"`
	NoCache          *bool              `json:"no-cache,omitempty" hcl:"no-cache,optional" cty:"no-cache"`
	NetworkMode      *string            `json:"network,omitempty" hcl:"network,optional" cty:"network"`
	NoCacheFilter    []string           `json:"no-cache-filter,omitempty" hcl:"no-cache-filter,optional" cty:"no-cache-filter"`
	ShmSize          *string            `json:"shm-size,omitempty" hcl:"shm-size,optional" cty:"shm-size"`
	Ulimits          []string           `json:"ulimits,omitempty" hcl:"ulimits,optional" cty:"ulimits"`
	Resources        map[string]string  `json:"-" hcl:"resources,optional" cty:"resources"`
	Call             *string            `json:"call,omitempty" hcl:"call,optional" cty:"call"`
	Entitlements     []string           `json:"entitlements,omitempty" hcl:"entitlements,optional" cty:"entitlements"`
	ExtraHosts       map[string]*string `json:"extra-hosts,omitempty" hcl:"extra-hosts,optional" cty:"extra-hosts"`
}

// MarshalJSON writes the target so that bake reads it back as the same: "${" begins no
// expression.
func (t *Target) MarshalJSON() ([]byte, error) {
	type plain Target
	escaped := struct {
		plain
		Resources map[string]any `json:"resources,omitempty"`
	}{plain: plain(*t), Resources: numbers(t.Resources)}
	escaped.Annotations = slices.Clone(t.Annotations)
	for i, a := range escaped.Annotations {
		escaped.Annotations[i] = escape(a)
	}
	if t.DockerfileInline != nil {
		escaped.DockerfileInline = ptr(escape(*t.DockerfileInline))
	}
	escaped.Labels, escaped.Args, escaped.ExtraHosts = escapeAll(t.Labels), escapeAll(t.Args), escapeAll(t.ExtraHosts)
	return json.Marshal(escaped)
}

func escape(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}

func escapeAll(values map[string]*string) map[string]*string {
	out := maps.Clone(values)
	for k, v := range out {
		if v != nil {
			out[k] = ptr(escape(*v))
		}
	}
	return out
}

// numbers has the limits of the CPU as numbers.
func numbers(limits map[string]string) map[string]any {
	out := make(map[string]any, len(limits))
	for k, v := range limits {
		out[k] = v
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && strings.HasPrefix(k, "cpu-") {
			out[k] = n
		}
	}
	return out
}

func ptr[T any](v T) *T { return &v }

// Merge lays another target over this one: what it says wins, or is added where the
// attribute is a collection of independent things. The parser of HCL calls it, too, for a
// target that is defined twice.
func (t *Target) Merge(over *Target) {
	if over.Description != "" {
		t.Description = over.Description
	}
	for _, field := range []struct{ mine, others **string }{
		{&t.Context, &over.Context},
		{&t.Dockerfile, &over.Dockerfile},
		{&t.DockerfileInline, &over.DockerfileInline},
		{&t.Target, &over.Target},
		{&t.Call, &over.Call},
		{&t.NetworkMode, &over.NetworkMode},
		{&t.ShmSize, &over.ShmSize},
	} {
		if *field.others != nil {
			*field.mine = *field.others
		}
	}
	if over.Pull != nil {
		t.Pull = over.Pull
	}
	if over.NoCache != nil {
		t.NoCache = over.NoCache
	}
	t.mergeReplaced(over)
	t.mergeAdded(over)
}

// mergeReplaced is merge for the lists of which the last one counts.
func (t *Target) mergeReplaced(over *Target) {
	if over.Tags != nil {
		t.Tags = over.Tags
	}
	if over.Platforms != nil {
		t.Platforms = over.Platforms
	}
	if over.CacheTo != nil {
		t.CacheTo = over.CacheTo
	}
	if over.Outputs != nil {
		t.Outputs = over.Outputs
	}
}

// mergeAdded is merge for what is added up.
func (t *Target) mergeAdded(over *Target) {
	t.Args = overlay(t.Args, over.Args)
	t.Labels = overlay(t.Labels, over.Labels)
	t.ExtraHosts = overlay(t.ExtraHosts, over.ExtraHosts)
	t.Contexts = with(t.Contexts, over.Contexts)
	t.Resources = with(t.Resources, over.Resources)
	t.Annotations = join(t.Annotations, over.Annotations)
	t.NoCacheFilter = join(t.NoCacheFilter, over.NoCacheFilter)
	t.Ulimits = join(t.Ulimits, over.Ulimits)
	t.Entitlements = join(t.Entitlements, over.Entitlements)
	t.Inherits = join(t.Inherits, over.Inherits)
	t.Attest = join(t.Attest, over.Attest)
	t.Secrets = join(t.Secrets, over.Secrets)
	t.SSH = join(t.SSH, over.SSH)
	t.CacheFrom = join(t.CacheFrom, over.CacheFrom)
}

// overlay adds values to a copy; null leaves what is there.
func overlay(base, over map[string]*string) map[string]*string {
	set := maps.Clone(over)
	maps.DeleteFunc(set, func(_ string, v *string) bool { return v == nil })
	return with(base, set)
}

// with is a copy of base with the values of over.
func with[V any](base, over map[string]V) map[string]V {
	if len(over) == 0 {
		return base
	}
	out := make(map[string]V, len(base)+len(over))
	maps.Copy(out, base)
	maps.Copy(out, over)
	return out
}

// join is a new list of both: those of the target that is inherited from stay as they are.
func join[S ~[]E, E any](a, b S) S {
	if len(b) == 0 {
		return a
	}
	return slices.Concat(a, b)
}

// tidy takes out what is there twice, and what a flag implies.
func (t *Target) tidy() {
	t.Annotations, t.Tags, t.Platforms = distinct(t.Annotations), distinct(t.Tags), distinct(t.Platforms)
	t.NoCacheFilter, t.Ulimits = distinct(t.NoCacheFilter), distinct(t.Ulimits)
	t.Attest, t.Secrets, t.SSH = t.Attest.tidy(), t.Secrets.tidy(), t.SSH.tidy()
	t.CacheFrom, t.CacheTo, t.Outputs = t.CacheFrom.tidy(), t.CacheTo.tidy(), t.Outputs.tidy()
	if t.NetworkMode != nil && *t.NetworkMode == "host" {
		t.Entitlements = join(t.Entitlements, []string{networkHost})
	}
	t.Entitlements = distinct(t.Entitlements)
	t.Contexts = maps.Clone(t.Contexts)
	maps.DeleteFunc(t.Contexts, func(_, v string) bool { return v == "" })
}

// distinct is the list without what is empty, and without repetitions.
func distinct(list []string) []string {
	var out []string
	for _, s := range list {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
