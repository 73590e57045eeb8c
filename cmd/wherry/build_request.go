//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// buildRequest reads what was typed, and what docker takes from the environment.
func buildRequest(e *env, o buildOptions) (build.Request, error) {
	req := build.Request{
		Context: o.Context, Dockerfile: o.File, Stdin: e.Stdin, Target: o.Target,
		NoCache: o.NoCache, NoCacheOf: o.NoCacheFilter, Pull: o.Pull, Runtime: o.Runtime,
		Reproducible: o.Reproducible,
		Allow:        o.Allow, SSHAgent: e.Getenv("SSH_AUTH_SOCK"),
		Client:   downloadClient(),
		Stdout:   e.Stdout,
		Progress: build.Progress{Mode: o.Progress, Out: e.Stderr},
		Notice:   e.note,
	}
	for _, read := range []func(*env, buildOptions, *build.Request) error{
		readDisplay, readSources, readResult, readSteps, readCaches, readAttests,
	} {
		if err := read(e, o, &req); err != nil {
			return req, err
		}
	}
	return req, nil
}

func buildUsage(format string, args ...any) error {
	return &usageError{command: program + " build", err: fmt.Errorf(format, args...)}
}

func readDisplay(_ *env, o buildOptions, req *build.Request) error {
	if len(o.Policies) > 0 {
		return errors.New("--policy is not supported: source policies need an interpreter that is not linked in")
	}
	if !slices.Contains([]string{"auto", "tty", "plain", "rawjson", "quiet", "none"}, o.Progress) {
		return buildUsage("invalid progress %q", o.Progress)
	}
	switch i, err := build.ParseIsolation(o.Isolation); {
	case err != nil:
		return buildUsage("%w", err)
	case o.Runtime != "" && (i == build.IsolationChroot || i == build.IsolationNone):
		return buildUsage("--runtime and --isolation=%s can't be used together", i)
	}
	if o.Quiet && o.Progress != "auto" && o.Progress != "quiet" {
		return buildUsage("--progress=%s and --quiet can't be used together", o.Progress)
	}
	if o.Quiet {
		req.Progress.Mode = "quiet"
	}
	return nil
}

// readSources reads what is built.
func readSources(e *env, o buildOptions, req *build.Request) (err error) {
	if req.Contexts, err = keyValues("build-context", o.BuildContexts, nil); err != nil {
		return err
	}
	wanted := o.Platforms
	if p := e.Getenv("DOCKER_DEFAULT_PLATFORM"); len(wanted) == 0 && p != "" {
		wanted = []string{p}
	}
	if req.Platforms, err = platform.ParseAll(wanted); err != nil {
		return err
	}
	if req.BuildArgs, err = keyValues("build-arg", o.BuildArgs, os.LookupEnv); err != nil {
		return err
	}
	if epoch := e.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		setDefault(req.BuildArgs, "SOURCE_DATE_EPOCH", epoch)
	}
	return e.addProxies(req.BuildArgs)
}

// addProxies adds the proxies of docker's config.json, as docker does.
func (e *env) addProxies(args map[string]string) error {
	file, err := config.Load(e.dockerConfigDir())
	if err != nil {
		return err
	}
	for name, value := range file.ParseProxyConfig("", nil) {
		if value != nil {
			setDefault(args, name, *value)
		}
	}
	return nil
}

// setDefault gives key a value unless it has one, in whatever case it is written.
func setDefault(values map[string]string, key, value string) {
	for k := range values {
		if strings.EqualFold(k, key) {
			return
		}
	}
	values[key] = value
}

// readResult reads what becomes of the result.
func readResult(e *env, o buildOptions, req *build.Request) (err error) {
	if req.Labels, err = keyValues("label", o.Labels, noEnv); err != nil {
		return err
	}
	for _, s := range o.Annotations {
		list, err := build.ParseAnnotation(s)
		if err != nil {
			return err
		}
		req.Annotations = append(req.Annotations, list...)
	}
	if req.Outputs, err = e.buildOutputs(o); err != nil {
		return err
	}
	names := o.Tags
	for _, out := range req.Outputs {
		if len(o.Tags) == 0 && out.Attrs["name"] != "" {
			names = append(names, strings.Split(out.Attrs["name"], ",")...)
		}
	}
	if req.Names, err = buildNames(names); err != nil {
		return err
	}
	if slices.ContainsFunc(req.Outputs, build.Output.ByDigest) {
		if req.Names, err = untagged(names); err != nil {
			return err
		}
	}
	if pushes(o.Push, req.Outputs) && len(req.Names) == 0 {
		return withHint(errors.New("nothing to push: the result has no name"), "%s build -t NAME --push ...", program)
	}
	return nil
}

// pushes says whether the result goes to a registry.
func pushes(flag bool, outputs []build.Output) bool {
	return flag || slices.ContainsFunc(outputs, build.Output.Pushed)
}

func (e *env) buildOutputs(o buildOptions) ([]build.Output, error) {
	var outputs []build.Output
	for _, s := range o.Outputs {
		out, err := build.ParseOutput(s)
		if err != nil {
			return nil, err
		}
		if out.Dest == "-" && e.StdoutTTY {
			return nil, withHint(fmt.Errorf("output %q: refusing to write to a terminal", s), "%s build -o type=%s,dest=FILE ...", program, out.Type)
		}
		if o.IIDFile != "" && (out.Type == build.OutputLocal || out.Type == build.OutputTar) {
			return nil, fmt.Errorf("output %q makes no image, so there is no ID for --iidfile", s)
		}
		if rewrite, err := strconv.ParseBool(out.Attrs["rewrite-timestamp"]); err == nil && !rewrite && o.Reproducible {
			return nil, fmt.Errorf("output %q: rewrite-timestamp=false and --reproducible can't be used together", s)
		}
		outputs = append(outputs, out)
	}
	if o.Push && len(outputs) > 0 && !slices.ContainsFunc(outputs, func(out build.Output) bool {
		return out.Type == build.OutputImage || out.Type == build.OutputRegistry
	}) {
		outputs = append(outputs, build.Output{Type: build.OutputImage})
	}
	return outputs, nil
}

func buildNames(tags []string) ([]reference.Named, error) {
	var names []reference.Named
	for _, t := range tags {
		ref, err := registry.ParseReference(t)
		if err != nil {
			return nil, err
		}
		if _, ok := ref.(reference.Digested); ok {
			return nil, fmt.Errorf("tag %q: a result can't be named by a digest", t)
		}
		names = append(names, ref)
	}
	return names, nil
}

// untagged are the repositories of a result that is called by its digest.
func untagged(names []string) ([]reference.Named, error) {
	var repos []reference.Named
	for _, name := range names {
		repo, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, err // it was read before
		}
		if !reference.IsNameOnly(repo) {
			return nil, fmt.Errorf("%q has a tag, but with push-by-digest=true the result gets none: use %q", name, reference.FamiliarName(repo))
		}
		repos = append(repos, repo)
	}
	return repos, nil
}

func noEnv(string) (string, bool) { return "", true }

// keyValues reads KEY=VALUE; a KEY alone has the value that lookup knows, and is left
// out if there is none. A nil lookup allows no KEY alone.
func keyValues(flag string, list []string, lookup func(string) (string, bool)) (map[string]string, error) {
	values := map[string]string{}
	for _, kv := range list {
		k, v, given := strings.Cut(kv, "=")
		if k == "" || !given && lookup == nil {
			return nil, fmt.Errorf("invalid --%s %q: KEY=VALUE is wanted", flag, kv)
		}
		if !given {
			if v, given = lookup(k); !given {
				continue
			}
		}
		values[k] = v
	}
	return values, nil
}
