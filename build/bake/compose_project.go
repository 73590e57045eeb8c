package bake

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/go-viper/mapstructure/v2"
)

// composeService is what a build needs of a service.
type composeService struct {
	Image       string                  `yaml:"image"`
	Build       *types.BuildConfig      `yaml:"build"`
	Environment types.MappingWithEquals `yaml:"environment"`
	EnvFiles    []types.EnvFile         `yaml:"env_file"`
}

// composeProject is a model with its values in their types. A key that compose does not
// know is an error.
func composeProject(model map[string]any, env map[string]string, notice func(string)) (*types.Project, error) {
	p := &types.Project{Services: types.Services{}, Secrets: types.Secrets{}, Environment: env}
	services, _ := model["services"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s, err := decodeService(services[name])
		if err != nil {
			return nil, fmt.Errorf("services.%s: %w", name, err)
		}
		config := types.ServiceConfig{Name: name}
		config.Image, config.Build, config.Environment, config.EnvFiles = s.Image, s.Build, s.Environment, s.EnvFiles
		p.Services[name] = config
	}
	secrets, _ := model["secrets"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		fields, _ := secrets[name].(map[string]any)
		extensions(fields)
		var s types.SecretConfig
		if err := decodeStrictly(fields, &s); err != nil {
			return nil, fmt.Errorf("secrets.%s: %w", name, err)
		}
		p.Secrets[name] = s
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if err := checkService(p, p.Services[name], notice); err != nil {
			return nil, fmt.Errorf("services.%s: %w", name, err)
		}
	}
	return p, nil
}

func decodeService(v any) (composeService, error) {
	service, _ := v.(map[string]any)
	build, _ := service["build"].(map[string]any)
	extended := extensions(build)
	var s composeService
	if err := decodeStrictly(service, &s); err != nil {
		return s, err
	}
	if s.Build != nil {
		s.Build.Extensions = extended
	}
	return s, nil
}

// extensions takes the keys out of fields that begin with "x-": they are not compose's.
func extensions(fields map[string]any) types.Extensions {
	out := types.Extensions{}
	for k, v := range fields {
		if strings.HasPrefix(k, "x-") {
			out[k] = v
			delete(fields, k)
		}
	}
	return out
}

// checkService finds what contradicts itself, and tells of what a build does not look at.
func checkService(p *types.Project, s types.ServiceConfig, notice func(string)) error {
	b := s.Build
	if b == nil {
		return nil
	}
	if b.DockerfileInline != "" && b.Dockerfile != "" {
		return errors.New("build has both dockerfile and dockerfile_inline")
	}
	for alias, from := range b.AdditionalContexts {
		name, ok := strings.CutPrefix(from, types.ServicePrefix)
		if other, known := p.Services[name]; ok && (!known || other.Build == nil) {
			return fmt.Errorf("build.additional_contexts.%s: there is no service %q that is built", alias, name)
		}
	}
	for key, given := range map[string]bool{"isolation": b.Isolation != "", "privileged": b.Privileged, "entitlements": len(b.Entitlements) > 0} {
		if given && notice != nil {
			notice(fmt.Sprintf("services.%s.build.%s has no effect", s.Name, key))
		}
	}
	return nil
}

// decodeStrictly fills out, a pointer to one of compose-go's structs, from a model's values.
func decodeStrictly(from, out any) error {
	var unknown mapstructure.Metadata
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		DecodeHook: mapstructure.ComposeDecodeHookFunc(decodeItself, decodeScalar),
		Result:     out, TagName: "yaml", Squash: true, Metadata: &unknown,
	})
	if err != nil {
		return err
	}
	if err := decoder.Decode(from); err != nil {
		return oneLine(err)
	}
	if len(unknown.Unused) > 0 {
		slices.Sort(unknown.Unused)
		return fmt.Errorf("unknown key %q", unknown.Unused[0])
	}
	return nil
}

// oneLine is an error of several lines as one.
func oneLine(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// decodeItself has compose-go's types read their own short forms.
func decodeItself(from, to reflect.Value) (any, error) {
	if to.Kind() == reflect.Pointer && to.IsNil() {
		return from.Interface(), nil // comes again, for what it points to
	}
	if !to.CanAddr() {
		return from.Interface(), nil
	}
	target, ok := to.Addr().Interface().(interface{ DecodeMapstructure(any) error })
	if !ok {
		return from.Interface(), nil
	}
	if err := target.DecodeMapstructure(from.Interface()); err != nil {
		return nil, err
	}
	return to.Interface(), nil
}

// decodeScalar reads a text where compose has another type, and writes a number as one.
func decodeScalar(from, to reflect.Value) (any, error) {
	switch {
	case from.Kind() == reflect.String && to.Kind() == reflect.Bool:
		switch strings.ToLower(from.String()) {
		case "y", "yes", "on":
			return true, nil
		case "n", "no", "off":
			return false, nil
		}
		return strconv.ParseBool(from.String())
	case from.Kind() == reflect.Int && to.Kind() == reflect.String:
		return strconv.FormatInt(from.Int(), 10), nil
	}
	return from.Interface(), nil
}
