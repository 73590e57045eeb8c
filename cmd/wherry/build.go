//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/tonistiigi/go-csvvalue"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

type buildOptions struct {
	Context   string
	File      string
	Tags      []string
	BuildArgs []string
	Labels    []string
	Target    string
	Platforms []string
	NoCache   bool
	Pull      bool
	Push      bool
	Outputs   []string
	Secrets   []string
	Progress  string
	Quiet     bool
	Runtime   string
}

// reexec runs the part that this process was started for, if it is one that a build
// has started, and does not return then.
func reexec() { build.Init() }

// pushes says whether the result goes to a registry.
func (o buildOptions) pushes(outputs []build.Output) bool {
	return o.Push || slices.ContainsFunc(outputs, func(out build.Output) bool { return out.Type == build.OutputRegistry })
}

func newBuildCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "Start a build",
		ArgsUsage: "PATH",
		Flags:     buildFlags(),
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runBuild(c.Context, e, buildOptions{
				Context: args[0], File: c.String("file"), Tags: c.StringSlice("tag"),
				BuildArgs: c.StringSlice("build-arg"), Labels: c.StringSlice("label"), Target: c.String("target"),
				Platforms: c.StringSlice("platform"), NoCache: c.Bool("no-cache"), Pull: c.Bool("pull"), Push: c.Bool("push"),
				Outputs: c.StringSlice("output"), Secrets: c.StringSlice("secret"),
				Progress: c.String("progress"), Quiet: c.Bool("quiet"), Runtime: c.String("runtime"),
			})
		},
	}
}

func buildFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "build-arg", Usage: "Set a build-time variable (KEY=VALUE, or KEY for that of the environment)"},
		&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "Name of the Dockerfile (default: \"PATH/Dockerfile\")"},
		&cli.StringSliceFlag{Name: "label", Usage: "Set metadata of the image (KEY=VALUE)"},
		&cli.BoolFlag{Name: "load", Usage: "Put the result into the store (it always is)"},
		&cli.BoolFlag{Name: "no-cache", Usage: "Do not use the cache when building the image"},
		&cli.StringSliceFlag{Name: "output", Aliases: []string{"o"}, Usage: "Output destination (as \"type=local,dest=path\")"},
		platformsFlag("Set target platform for build"),
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "Set type of progress output (\"auto\", \"tty\", \"plain\", \"rawjson\", \"quiet\", \"none\")"},
		&cli.BoolFlag{Name: "pull", Usage: "Always attempt to pull all referenced images"},
		&cli.BoolFlag{Name: "push", Usage: "Push the result under its names"},
		quietFlag("Suppress the build output and print image ID on success"),
		&cli.StringFlag{Name: "runtime", Usage: "Run the steps with this runc-like program instead of wherry itself"},
		&cli.StringSliceFlag{Name: "secret", Usage: "Secret to expose to the build (as \"id=mysecret[,src=/local/secret]\" or \"id=mysecret,env=NAME\")"},
		&cli.StringSliceFlag{Name: "tag", Aliases: []string{"t"}, Usage: "Image identifier (as \"[registry/]repository[:tag]\")"},
		&cli.StringFlag{Name: "target", Usage: "Set the target build stage to build"},
	}
}

func runBuild(ctx context.Context, e *env, o buildOptions) error {
	req, err := buildRequest(e, o)
	if err != nil {
		return err
	}
	notes, err := e.addHosts(ctx, &req)
	if err != nil {
		return err
	}
	defer notes.say(e)
	dir, err := e.storeDir()
	if err != nil {
		return err
	}
	// The run of this program that Enter starts is root to itself, but its store is this user's.
	if err := os.Setenv("WHERRY_STORE", dir); err != nil {
		return err
	}
	code, entered, err := build.Enter(req.Notice)
	if err != nil {
		return err
	}
	if entered {
		return exitWith(code)
	}
	store, err := e.openStore()
	if err != nil {
		return err
	}
	res, err := build.Build(ctx, buildStore{store}, filepath.Join(dir, buildStateName), req)
	if err != nil {
		e.sayBuildFailure(err)
		return err
	}
	if o.pushes(req.Outputs) {
		for _, name := range req.Names {
			if err := runPush(ctx, e, pushOptions{Ref: name.String(), Quiet: o.Quiet}); err != nil {
				return err
			}
		}
		e.Out.Reset() // stdout is the digest alone
	}
	if res.Digest != (v1.Hash{}) {
		fmt.Fprintln(&e.Out, res.Digest)
	}
	return nil
}

// buildStore is the image store in the words of package build.
type buildStore struct{ *layout.Store }

func (s buildStore) Adopt(ctx context.Context, src build.Source, names []string) (v1.Descriptor, error) {
	return s.Store.Adopt(ctx, src, names)
}

func buildRequest(e *env, o buildOptions) (build.Request, error) {
	req := build.Request{
		Context: o.Context, Dockerfile: o.File, Target: o.Target, NoCache: o.NoCache, Pull: o.Pull, Runtime: o.Runtime,
		Stdout:   e.Stdout,
		Progress: build.Progress{Mode: o.Progress, Out: e.Stderr},
		Notice:   func(msg string) { e.say("note: %s", msg) },
	}
	if o.Quiet {
		req.Progress.Mode = "quiet"
	}
	if !slices.Contains([]string{"auto", "tty", "plain", "rawjson", "quiet", "none"}, req.Progress.Mode) {
		return req, &usageError{command: program + " build", err: fmt.Errorf("invalid progress %q", o.Progress)}
	}
	keys, err := e.credentials()
	if err != nil {
		return req, err
	}
	req.Keychain = keys
	if req.Names, err = buildNames(o.Tags); err != nil {
		return req, err
	}
	if req.Platforms, err = platform.ParseAll(o.Platforms); err != nil {
		return req, err
	}
	if req.BuildArgs, err = keyValues("build-arg", o.BuildArgs, os.LookupEnv); err != nil {
		return req, err
	}
	if req.Labels, err = keyValues("label", o.Labels, noEnv); err != nil {
		return req, err
	}
	if req.Secrets, err = buildSecrets(o.Secrets); err != nil {
		return req, err
	}
	req.Outputs, err = e.buildOutputs(o)
	return req, err
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

func noEnv(string) (string, bool) { return "", true }

// keyValues reads KEY=VALUE; a KEY alone has the value that lookup knows, and is left
// out if there is none.
func keyValues(flag string, list []string, lookup func(string) (string, bool)) (map[string]string, error) {
	values := map[string]string{}
	for _, kv := range list {
		k, v, given := strings.Cut(kv, "=")
		if k == "" {
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

func buildSecrets(list []string) ([]build.Secret, error) {
	var secrets []build.Secret
	for _, s := range list {
		fields, err := csvvalue.Fields(s, nil)
		if err != nil {
			return nil, fmt.Errorf("invalid --secret: %w", err)
		}
		var secret build.Secret
		for _, f := range fields {
			k, v, _ := strings.Cut(f, "=")
			switch strings.ToLower(k) {
			case "id":
				secret.ID = v
			case "src", "source":
				secret.File = v
			case "env":
				secret.Env = v
			case "type":
				if v != "file" && v != "env" {
					return nil, fmt.Errorf("invalid --secret: no type %q (there is file, env)", v)
				}
			default:
				return nil, fmt.Errorf("invalid --secret: unknown key %q (there is id, src, env, type)", k)
			}
		}
		if secret.ID == "" {
			return nil, errors.New("invalid --secret: id is missing")
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
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
		outputs = append(outputs, out)
	}
	if o.pushes(outputs) && len(o.Tags) == 0 {
		return nil, withHint(errors.New("nothing to push: the result has no name"), "%s build -t NAME --push ...", program)
	}
	if o.Push && len(outputs) > 0 && !slices.ContainsFunc(outputs, func(out build.Output) bool {
		return out.Type == build.OutputImage || out.Type == build.OutputRegistry
	}) {
		outputs = append(outputs, build.Output{Type: build.OutputImage})
	}
	return outputs, nil
}

// sayBuildFailure shows what goes before the one line of the error: the step's output,
// unless the display has shown it, and the lines of the Dockerfile.
func (e *env) sayBuildFailure(err error) {
	failed, ok := errors.AsType[*build.Error](err)
	if !ok {
		return
	}
	if !failed.Shown {
		for _, line := range failed.Output {
			e.say("%s", printable(line))
		}
	}
	if failed.Excerpt != "" {
		e.say("%s", strings.TrimRight(string(harmless([]byte(failed.Excerpt))), "\n"))
	}
}
