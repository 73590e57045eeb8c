//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/bake"
	"github.com/wherry-oci/wherry/build/farm"
)

// bakeOptions is a bake as it was typed.
type bakeOptions struct {
	Targets      []string
	Files        []string
	Sets         []string
	Vars         []string
	Allow        []string
	Print        bool
	List         string
	Call         string
	MetadataFile string
	Progress     string
	Builder      string
	EmulatorDir  string
	Policies     []string
	Debug        bool
	Remote       string // URL that the definition is read from; "": it is here
	Caller       string // BAKE_CMD_CONTEXT
}

func newBakeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "bake",
		Usage:     "Build from a file",
		ArgsUsage: "[TARGET...]",
		Flags:     bakeFlags(),
		Action:    func(c *cli.Context) error { return runBake(c.Context, e, readBakeOptions(c)) },
	}
}

func bakeFlags() []cli.Flag {
	return []cli.Flag{
		list("allow", "Allow build to access specified resources (\"fs.read=PATH\", \"network.host\")"),
		&cli.StringFlag{Name: "builder", Usage: "Override the configured builder instance (\"default\" is this process)"},
		&cli.StringFlag{Name: "call", Value: callBuild, Usage: "Set method for evaluating build (\"check\", \"outline\", \"targets\")"},
		&cli.BoolFlag{Name: "check", Usage: "Shorthand for \"--call=check\""},
		&cli.BoolFlag{Name: "debug", Aliases: []string{"D"}, Usage: "Enable debug logging (has no effect)"},
		emulatorDirFlag(),
		list("file", "Build definition file", "f"),
		&cli.StringFlag{Name: "list", Usage: "List targets or variables"},
		&cli.BoolFlag{Name: "load", Usage: "Shorthand for \"--set=*.output=type=docker\" (the store, where results go anyway)"},
		&cli.StringFlag{Name: "metadata-file", Usage: "Write build result metadata to a file"},
		&cli.BoolFlag{Name: "no-cache", Usage: "Do not use cache when building the image"},
		hidden(list("policy", "Policy configuration (not supported)")),
		&cli.BoolFlag{Name: "print", Usage: "Print the options without building"},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "Set type of progress output (\"auto\", \"none\", \"plain\", \"quiet\", \"rawjson\", \"tty\")"},
		&cli.StringFlag{Name: "provenance", Usage: "Shorthand for \"--set=*.attest=type=provenance\""},
		&cli.BoolFlag{Name: "pull", Usage: "Always attempt to pull all referenced images"},
		&cli.BoolFlag{Name: "push", Usage: "Shorthand for \"--set=*.output=type=registry\""},
		&cli.StringFlag{Name: "sbom", Usage: "Shorthand for \"--set=*.attest=type=sbom\""},
		list("set", "Override target value (as \"targetpattern.key=value\")"),
		list("var", "Set a variable value (as \"name=value\")"),
	}
}

func readBakeOptions(c *cli.Context) bakeOptions {
	o := bakeOptions{
		Targets: c.Args().Slice(), Files: c.StringSlice("file"), Vars: c.StringSlice("var"), Allow: c.StringSlice("allow"),
		Print: c.Bool("print"), List: c.String("list"), Call: c.String("call"), MetadataFile: c.String("metadata-file"),
		Progress: c.String("progress"), Builder: c.String("builder"), EmulatorDir: c.String("emulator-dir"), Policies: c.StringSlice("policy"), Debug: c.IsSet("debug"),
	}
	if c.Bool("check") {
		o.Call = build.AskCheck
	}
	// The flags that are shorthands are the last word, as in docker.
	o.Sets = slices.Clone(c.StringSlice("set"))
	for _, name := range []string{"push", "load"} {
		if c.Bool(name) {
			o.Sets = append(o.Sets, "*."+name+"=true")
		}
	}
	for _, name := range []string{"no-cache", "pull"} {
		if c.IsSet(name) {
			o.Sets = append(o.Sets, fmt.Sprintf("*.%s=%t", name, c.Bool(name)))
		}
	}
	for _, kind := range []string{"sbom", "provenance"} {
		if value := c.String(kind); value != "" {
			o.Sets = append(o.Sets, "*.attest=type="+kind+","+switched(value))
		}
	}
	if name, _, _ := strings.Cut(o.Call, ","); name != callBuild {
		o.Sets = append(o.Sets, "*.call="+name)
	}
	return o
}

func bakeUsage(format string, args ...any) error {
	return &usageError{command: program + " bake", err: fmt.Errorf(format, args...)}
}

func runBake(ctx context.Context, e *env, o bakeOptions) error {
	if o.Print && o.List != "" {
		return bakeUsage("--print and --list can't be used together")
	}
	if isTrue(e.Getenv("BUILDX_BAKE_FILE_RELATIVE_PATHS")) {
		return withHint(errors.New("BUILDX_BAKE_FILE_RELATIVE_PATHS is not supported: paths are relative to the current folder"),
			"unset BUILDX_BAKE_FILE_RELATIVE_PATHS; cd FOLDER && %s bake ...", program)
	}
	o.Remote, o.Caller, o.Targets = remoteDefinition(o.Targets)
	b := &baker{env: e}
	var err error
	if b.chosen, err = e.chooseBuilder(o.Builder); err != nil {
		return err
	}
	if shows := o.Print || o.List != ""; !shows || o.Remote != "" {
		// Standard input can be read once: by the process that this starts, if it does.
		if b.chosen != nil {
			b.store, b.state, err = e.enterFarm(ctx, b.chosen, "")
		} else {
			b.store, b.state, err = e.enterBuild(ctx, "", e.note)
		}
		if err != nil {
			return err
		}
	}
	definition, err := b.readDefinition(ctx, o)
	if err != nil {
		return err
	}
	if o.List != "" {
		return e.listBake(definition, o.List)
	}
	if b.plan, err = definition.Resolve(o.Targets, o.Sets); err != nil {
		return err
	}
	if err := b.plan.Rebase(b.base); err != nil {
		return err
	}
	if o.Print {
		return e.printJSON(b.plan)
	}
	if err := e.allowBake(ctx, b.plan, o); err != nil {
		return err
	}
	if o.Debug {
		e.note("--debug has no effect")
	}
	return b.bake(ctx, o)
}

// baker is a plan about to be built.
type baker struct {
	*env
	store buildStore
	state build.State
	base  string // URL of the repository or archive that the definition is in; "": it is here
	plan  *bake.Plan

	chosen *farm.Builder // nil: this process
}

// bake builds the plan's targets and hands their results on. Those that are to be asked
// a question are not built.
func (b *baker) bake(ctx context.Context, o bakeOptions) error {
	requests, notes, err := b.requests(ctx, o)
	if err != nil {
		return err
	}
	defer notes.say(b.env)
	asked := map[string]build.Request{}
	var targets []build.Target
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		if callOf(b.plan.Targets[name]) != callBuild {
			asked[name] = requests[name]
		} else {
			targets = append(targets, build.Target{Name: name, Request: requests[name]})
		}
	}
	if len(targets) > 0 {
		if err := b.buildTargets(ctx, o, targets); err != nil {
			return err
		}
	}
	if len(asked) > 0 {
		return b.askTargets(ctx, o, asked)
	}
	return nil
}

// several builds here, or on the nodes of a builder, which hands the results on.
func (b *baker) several(ctx context.Context, p build.Progress, targets []build.Target) (map[string]*build.Result, error) {
	if b.chosen == nil {
		return build.Several(ctx, b.store, b.state, p, targets)
	}
	f, err := b.farm(b.chosen, p.Mode)
	if err != nil {
		return nil, err
	}
	return build.OnFarm(ctx, b.store, b.state, f, p, targets)
}

func (b *baker) buildTargets(ctx context.Context, o bakeOptions, targets []build.Target) error {
	requests := make([]build.Request, len(targets))
	for i, t := range targets {
		requests[i] = t.Request
	}
	if b.chosen == nil { // nodes say so themselves
		if err := b.sayPlatforms(ctx, b.state, requests...); err != nil {
			return err
		}
	}
	progress := build.Progress{Mode: o.Progress, Out: b.Stderr}
	results, err := b.several(ctx, progress, targets)
	if err != nil {
		(&builder{env: b.env}).sayBuildFailure(err)
		return err
	}
	for _, t := range targets {
		if b.chosen != nil || !pushes(false, t.Request.Outputs) {
			continue
		}
		err := pushResult(ctx, b.env, t.Request, results[t.Name].Digest, o.Progress == "quiet")
		if err != nil {
			return &build.TargetError{Target: t.Name, Err: err}
		}
	}
	b.Out.Reset() // stdout is the digests alone
	metadata := map[string]any{}
	for _, t := range targets {
		metadata[t.Name] = readableMetadata(results[t.Name].Metadata)
		if d := results[t.Name].Digest; d != (v1.Hash{}) {
			fmt.Fprintf(&b.Out, "%s %s\n", t.Name, d)
		}
	}
	if o.MetadataFile == "" {
		return nil
	}
	return writeMetadata(o.MetadataFile, metadata)
}
