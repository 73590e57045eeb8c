package bake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
)

// isCompose tells by the name or, where that says nothing, by the content.
func isCompose(f File, o Options) bool {
	name := strings.ToLower(f.Name)
	switch {
	case strings.HasSuffix(name, ".yml"), strings.HasSuffix(name, ".yaml"):
		return true
	case strings.HasSuffix(name, ".json"), strings.HasSuffix(name, ".hcl"):
		return false
	}
	project, err := loadCompose([]File{f}, o)
	return err == nil && len(project.Services) > 0
}

// addCompose makes a target of each service that is built, and the group default of them.
func (d *Definition) addCompose(files []File, o Options) error {
	project, err := loadCompose(files, o)
	if err != nil {
		return err
	}
	all := &Group{Name: "default"}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service := project.Services[name]
		if service.Build == nil {
			continue
		}
		t, err := serviceTarget(service, project)
		if err != nil {
			return fmt.Errorf("service %q: %w", name, err)
		}
		all.Targets = append(all.Targets, t.Name)
		d.Targets = append(d.Targets, t)
	}
	d.Groups = append(d.Groups, all)
	return nil
}

// loadCompose reads of compose files what matters for a build.
func loadCompose(files []File, o Options) (*types.Project, error) {
	env, err := composeEnv(o)
	if err != nil {
		return nil, err
	}
	r := &composeReader{env: env, open: o.Open, opened: new(int), notice: o.Notice}
	model, err := r.read(files)
	if err != nil {
		return nil, err
	}
	if model["services"] == nil && model["secrets"] == nil {
		return nil, errors.New("there is nothing to build in it")
	}
	if err := rebase(model, ""); err != nil {
		return nil, err
	}
	project, err := composeProject(model, env, o.Notice)
	if err != nil {
		return nil, err
	}
	return project.WithServicesEnvironmentResolved(false)
}

// composeEnv is what compose files interpolate.
func composeEnv(o Options) (map[string]string, error) {
	env := map[string]string{}
	if !o.Untold {
		maps.Copy(env, o.Environ)
	}
	file, err := dotenv.ParseWithLookup(bytes.NewReader(o.Dotenv), func(k string) (string, bool) {
		v, ok := env[k]
		return v, ok
	})
	if err != nil {
		return nil, fmt.Errorf(".env: %w", err)
	}
	for k, v := range file {
		if _, set := env[k]; !set {
			env[k] = v
		}
	}
	maps.Copy(env, o.Vars)
	return env, nil
}

func serviceTarget(s types.ServiceConfig, project *types.Project) (*Target, error) {
	b := s.Build
	t := &Target{
		Name: strings.ReplaceAll(s.Name, ".", "_"), Context: given(b.Context), Dockerfile: given(b.Dockerfile),
		DockerfileInline: given(b.DockerfileInline), Contexts: serviceContexts(b.AdditionalContexts), Target: given(b.Target),
		Tags: b.Tags, Platforms: b.Platforms, NetworkMode: given(b.Network), Labels: pointers(b.Labels),
		Args: serviceArgs(s, project),
	}
	if b.NoCache {
		t.NoCache = ptr(true)
	}
	if b.Pull {
		t.Pull = ptr(true)
	}
	if b.ShmSize > 0 {
		t.ShmSize = ptr(sizeText(int64(b.ShmSize)))
	}
	for name, u := range b.Ulimits {
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%d:%d", name, soft, hard))
	}
	slices.Sort(t.Ulimits)
	for host, ips := range b.ExtraHosts {
		t.ExtraHosts = with(t.ExtraHosts, map[string]*string{host: ptr(strings.Join(ips, ","))})
	}
	if err := t.addServiceLists(b, project); err != nil {
		return nil, err
	}
	if err := t.addExtension(b.Extensions["x-bake"]); err != nil {
		return nil, fmt.Errorf("x-bake: %w", err)
	}
	if len(t.Tags) == 0 && s.Image != "" {
		t.Tags = []string{s.Image}
	}
	return t, checkName(t.Name)
}

// sizeText is a size as docker writes it, unless that would round it.
func sizeText(bytes int64) string {
	text := units.BytesSize(float64(bytes))
	if back, err := units.RAMInBytes(text); err != nil || back != bytes {
		return strconv.FormatInt(bytes, 10)
	}
	return text
}

// addServiceLists reads what is a list of entries.
func (t *Target) addServiceLists(b *types.BuildConfig, project *types.Project) error {
	for _, key := range b.SSH {
		e := Entry{"id": key.ID}
		if key.Path != "" {
			e["paths"] = key.Path
		}
		t.SSH = append(t.SSH, e)
	}
	slices.SortFunc(t.SSH, func(a, b Entry) int { return strings.Compare(a["id"], b["id"]) })
	for _, used := range b.Secrets {
		declared := project.Secrets[used.Source]
		if declared.External {
			return fmt.Errorf("the secret %q is external", used.Source)
		}
		e := Entry{"id": used.Source}
		if declared.File != "" {
			e["src"] = declared.File
		}
		if declared.Environment != "" {
			e["env"] = declared.Environment
		}
		t.Secrets = append(t.Secrets, e)
	}
	var attests []string
	if b.SBOM != "" {
		attests = append(attests, "type=sbom,"+Switched(b.SBOM))
	}
	if b.Provenance != "" {
		attests = append(attests, "type=provenance,"+Switched(b.Provenance))
	}
	var errs [3]error
	if len(b.CacheFrom) > 0 {
		t.CacheFrom, errs[0] = t.CacheFrom.parse(b.CacheFrom)
	}
	if len(b.CacheTo) > 0 {
		t.CacheTo, errs[1] = t.CacheTo.parse(b.CacheTo)
	}
	if len(attests) > 0 {
		t.Attest, errs[2] = t.Attest.parse(attests)
	}
	return errors.Join(errs[:]...)
}

// Switched reads "true" and "false", as --sbom and --provenance have them, as what
// --attest says for them.
func Switched(value string) string {
	if on, err := strconv.ParseBool(value); err == nil {
		return "disabled=" + strconv.FormatBool(!on)
	}
	return value
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func pointers(values map[string]string) map[string]*string {
	var out map[string]*string
	for k, v := range values {
		out = with(out, map[string]*string{k: &v})
	}
	return out
}

// serviceArgs are the build arguments; one without a value has that of the service's or
// the project's environment.
func serviceArgs(s types.ServiceConfig, project *types.Project) map[string]*string {
	var out map[string]*string
	for k, v := range s.Build.Args {
		if v == nil {
			v = s.Environment[k]
		}
		if known, ok := project.Environment[k]; v == nil && ok {
			v = &known
		}
		if v != nil {
			out = with(out, map[string]*string{k: v})
		}
	}
	return out
}

// serviceContexts has other services as the targets they become.
func serviceContexts(contexts map[string]string) map[string]string {
	var out map[string]string
	for k, v := range contexts {
		for _, prefix := range []string{"service:", targetPrefix} {
			if name, ok := strings.CutPrefix(v, prefix); ok {
				v = targetPrefix + strings.ReplaceAll(name, ".", "_")
			}
		}
		out = with(out, map[string]string{k: v})
	}
	return out
}

// texts is a list, or a text of words.
type texts []string

func (l *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*l = strings.Fields(one)
		return nil
	}
	return json.Unmarshal(data, (*[]string)(l))
}

// addExtension reads x-bake: what bake knows and compose has no word for.
// https://docs.docker.com/build/bake/compose-file/#extension-field-with-x-bake
func (t *Target) addExtension(ext any) error {
	text, err := json.Marshal(ext)
	if err != nil {
		return err
	}
	var x struct {
		Tags          texts             `json:"tags"`
		CacheFrom     texts             `json:"cache-from"`
		CacheTo       texts             `json:"cache-to"`
		Secrets       texts             `json:"secret"`
		SSH           texts             `json:"ssh"`
		Platforms     texts             `json:"platforms"`
		Outputs       texts             `json:"output"`
		Pull          *bool             `json:"pull"`
		NoCache       *bool             `json:"no-cache"`
		NoCacheFilter texts             `json:"no-cache-filter"`
		Contexts      map[string]string `json:"contexts"`
	}
	if err := json.Unmarshal(text, &x); err != nil {
		return err
	}
	over := &Target{Pull: x.Pull, NoCache: x.NoCache, NoCacheFilter: x.NoCacheFilter}
	t.Contexts = with(serviceContexts(x.Contexts), t.Contexts) // what compose has a word for is said there
	t.Tags, t.Platforms = distinct(join(t.Tags, x.Tags)), distinct(join(t.Platforms, x.Platforms))
	var errs [5]error
	over.CacheFrom, errs[0] = over.CacheFrom.parse(x.CacheFrom)
	over.Secrets, errs[1] = over.Secrets.parse(x.Secrets)
	over.SSH, errs[2] = over.SSH.parse(x.SSH)
	cacheTo, err := t.CacheTo.parse(x.CacheTo)
	errs[3] = err
	outputs, err := t.Outputs.parse(x.Outputs)
	errs[4] = err
	t.Merge(over)
	t.CacheTo, t.Outputs = join(t.CacheTo, cacheTo), join(t.Outputs, outputs)
	return errors.Join(errs[:]...)
}
