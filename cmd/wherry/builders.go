//go:build linux

package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/farm"
	"github.com/wherry-oci/wherry/registry"
)

// builders is where the user's builders are.
func (e *env) builders() farm.Folder { return farm.Folder(e.buildersDir()) }

// builderName is the builder that is asked for: by the flag, BUILDX_BUILDER, or "use".
func (e *env) builderName(flag string) (string, error) {
	if name := firstOf(flag, e.Getenv("BUILDX_BUILDER")); name != "" {
		return name, nil
	}
	return e.builders().Current()
}

// chooseBuilder is the builder that is asked for; nil if it is this process alone.
func (e *env) chooseBuilder(flag string) (*farm.Builder, error) {
	name, err := e.builderName(flag)
	if err != nil || name == farm.Default {
		return nil, err
	}
	return e.builders().Get(name)
}

// enterFarm is enterBuild for builds on a builder's nodes: they need nothing of this
// machine, unless this process is a node too.
func (e *env) enterFarm(ctx context.Context, b *farm.Builder, isolation string) (store buildStore, state build.State, err error) {
	if b.HasLocal() {
		return e.enterBuild(ctx, isolation, e.note)
	}
	dir, err := e.storeDir()
	if err != nil {
		return buildStore{}, state, err
	}
	state.Dir = filepath.Join(dir, buildStateName)
	images, err := e.openStore()
	return buildStore{images}, state, err
}

// farm is how builds are done on a builder's nodes, with a display of that mode.
func (e *env) farm(b *farm.Builder, mode string) (build.Farm, error) {
	client, err := e.registryClient(nil)
	if err != nil {
		return build.Farm{}, err
	}
	f := build.Farm{Name: b.Name, Nodes: b.Nodes, Registries: farmRegistries{client}}
	f.Drawn = mode == "tty" || mode == "auto" && e.StderrTTY
	if mode != "quiet" && mode != "none" {
		f.Told = e.note
	}
	return f, nil
}

// farmRegistries are registries in the words of package build.
type farmRegistries struct{ client *registry.Client }

func (r farmRegistries) Manifest(ctx context.Context, ref reference.Canonical) (v1.Descriptor, []byte, error) {
	img, err := r.client.Get(ctx, ref)
	if err != nil {
		return v1.Descriptor{}, nil, concerning("push", reference.FamiliarString(ref), err)
	}
	return img.Descriptor(), img.RawManifest(), nil
}

func (r farmRegistries) Push(ctx context.Context, ref reference.Named, src build.Source) error {
	return concerning("push", reference.FamiliarString(ref), r.client.Push(ctx, ref, src))
}

// hintForFarm is the command that helps where a builder is not what was expected.
func hintForFarm(err error) string {
	if _, ok := errors.AsType[*farm.NoBuilderError](err); ok {
		return program + " builder ls"
	}
	if e, ok := errors.AsType[*farm.NoNodeError](err); ok {
		return strings.TrimSpace(program + " builder inspect " + e.Builder)
	}
	return ""
}
