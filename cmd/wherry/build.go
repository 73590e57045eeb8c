//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/layout"
)

// callBuild is --call for what is no question: a build.
const callBuild = "build"

// reexec runs the part that this process was started for, if it is one that a build
// has started, and does not return then.
func reexec() { build.Init() }

func newBuildCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "Start a build",
		ArgsUsage: "PATH | URL | -",
		Flags:     buildFlags(),
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runBuild(c.Context, e, readBuildOptions(c, args[0]))
		},
	}
}

func runBuild(ctx context.Context, e *env, o buildOptions) error {
	chosen, err := e.chooseBuilder(o.Builder)
	if err != nil {
		return err
	}
	req, err := buildRequest(e, o)
	if err != nil {
		return err
	}
	if err := checkReport(o.Report); err != nil {
		return err
	}
	notes, err := e.addHosts(ctx, &req)
	if err != nil {
		return err
	}
	defer notes.say(e)
	b := builder{env: e, request: req, farm: chosen}
	if chosen != nil {
		b.store, b.state, err = e.enterFarm(ctx, chosen, o.isolation())
	} else {
		b.store, b.state, err = e.enterBuild(ctx, o.isolation(), req.Notice)
	}
	if err != nil {
		return err
	}
	for _, name := range o.NoEffect {
		e.say("note: --%s has no effect", name)
	}
	if o.Call != callBuild {
		return b.ask(ctx, o.Call)
	}
	return b.build(ctx, o)
}

// enterBuild goes where this process may mount, and returns the image store and the folder
// of the build cache. Where another run of this program has done the whole work, the
// error is its exit code.
func (e *env) enterBuild(ctx context.Context, isolation string, notice func(string)) (store buildStore, state build.State, err error) {
	wanted, err := build.ParseIsolation(firstOf(isolation, e.Getenv("WHERRY_ISOLATION")))
	if err != nil {
		return buildStore{}, state, err
	}
	if err := tempWritable(); err != nil {
		return buildStore{}, state, err
	}
	dir, err := e.storeDir()
	if err != nil {
		return buildStore{}, state, err
	}
	// The run of this program that Enter starts is root to itself, but its store is this user's.
	if err := os.Setenv("WHERRY_STORE", dir); err != nil {
		return buildStore{}, state, err
	}
	state.Dir = filepath.Join(dir, buildStateName)
	code, entered, err := state.Enter(ctx, wanted, notice)
	if err != nil {
		return buildStore{}, state, err
	}
	if entered {
		return buildStore{}, state, exitWith(code)
	}
	images, err := e.openStore()
	return buildStore{images}, state, err
}

// tempWritable says why builds can have no temporary files here, as in a container whose root is read-only.
func tempWritable() error {
	dir := os.TempDir()
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return withHint(fmt.Errorf("builds need a folder for temporary files: %q: %w", dir, err), "TMPDIR=DIR %s build ...", program)
	}
	return nil
}

// buildStore is the image store in the words of package build.
type buildStore struct{ *layout.Store }

func (s buildStore) Adopt(ctx context.Context, src build.Source, names []string) (v1.Descriptor, error) {
	return s.Store.Adopt(ctx, src, names)
}

// builder is one build about to start.
type builder struct {
	*env
	store   buildStore
	state   build.State
	request build.Request
	farm    *farm.Builder // nil: this process
}

// run builds here, or on the nodes of a builder, which hands the result on.
func (b *builder) run(ctx context.Context, o buildOptions) (*build.Result, error) {
	if b.farm == nil {
		return build.Build(ctx, b.store, b.state, b.request)
	}
	for flag, value := range map[string]string{"isolation": o.Isolation, "emulator-dir": o.EmulatorDir} {
		if value != "" && !b.farm.HasLocal() {
			return nil, fmt.Errorf("--%s is not possible on the nodes of a builder", flag)
		}
	}
	f, err := b.env.farm(b.farm, b.request.Progress.Mode)
	if err != nil {
		return nil, err
	}
	b.request.Push, b.request.Keep = o.Push, o.Load
	results, err := build.OnFarm(ctx, b.store, b.state, f, b.request.Progress, []build.Target{{Request: b.request}})
	return results[""], err
}

// build builds, and hands the result on.
func (b *builder) build(ctx context.Context, o buildOptions) error {
	if attrs, asked := b.request.Attest["sbom"]; asked && !strings.Contains(attrs, "generator=") {
		b.say("note: %s is to list what is in the result", build.DefaultScanner)
	}
	if b.farm == nil { // nodes say so themselves
		if err := b.sayPlatforms(ctx, b.state, b.request); err != nil {
			return err
		}
	}
	var reported error
	if o.Report != "" {
		b.request.Report = func(r *build.Report) { reported = writeReport(o.Report, r, b.title()) }
	}
	res, err := b.run(ctx, o)
	if err != nil {
		if reported != nil {
			b.say("note: %v", reported)
		}
		b.sayBuildFailure(err)
		return b.hintTarget(ctx, err)
	}
	if reported != nil {
		return reported
	}
	if b.farm == nil && pushes(o.Push, b.request.Outputs) {
		if err := pushResult(ctx, b.env, b.request, res.Digest, o.Quiet); err != nil {
			return err
		}
		b.Out.Reset() // stdout is the digest alone
	}
	if err := writeResultFiles(o, res); err != nil {
		return err
	}
	piped := slices.ContainsFunc(b.request.Outputs, func(o build.Output) bool { return o.Dest == "-" })
	if res.Digest != (v1.Hash{}) && !piped { // the result itself is on stdout then
		fmt.Fprintln(&b.Out, res.Digest)
	}
	return nil
}
