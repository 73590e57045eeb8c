//go:build linux

package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/bake"
)

// remoteDefinition takes the URLs off the operands: of the definition, and, if there is a
// second one, of what BAKE_CMD_CONTEXT is to be.
func remoteDefinition(operands []string) (url, caller string, targets []string) {
	caller = cwdPrefix
	if len(operands) == 0 || !bake.IsRemote(operands[0]) {
		return "", caller, operands
	}
	url, operands = operands[0], operands[1:]
	if len(operands) > 0 && bake.IsRemote(operands[0]) {
		caller, operands = operands[0], operands[1:]
	}
	return url, caller, operands
}

// remoteFiles reads the files of a remote definition: those of names that are not said to
// be here, or those with the default names. The URL of a single file is the definition.
func (b *baker) remoteFiles(ctx context.Context, o bakeOptions, names []string) ([]bake.File, error) {
	flags := buildOptions{Context: o.Remote, Call: callBuild, Progress: o.Progress, Builder: o.Builder}
	b.addGitAccess(&flags)
	req, err := buildRequest(b.env, flags)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.HasPrefix(name, cwdPrefix) })
	wanted := names
	if len(names) == 0 {
		wanted = bake.DefaultFiles()
	}
	found, err := b.readRemote(ctx, req, wanted)
	if err != nil {
		(&builder{env: b.env}).sayBuildFailure(err)
		return nil, err
	}
	if found.Single != nil {
		return []bake.File{{Name: o.Remote, Data: found.Single}}, nil
	}
	b.base = o.Remote
	var files []bake.File
	for _, name := range wanted {
		data, ok := found.Files[name]
		if !ok && len(names) > 0 {
			return nil, &fs.PathError{Op: "open", Path: o.Remote + " " + name, Err: fs.ErrNotExist}
		}
		if ok {
			files = append(files, bake.File{Name: name, Data: data})
		}
	}
	if len(files) == 0 {
		return nil, withHint(errors.New("couldn't find a bake definition in "+o.Remote), "%s bake -f FILE %s", program, o.Remote)
	}
	return files, nil
}

func (b *baker) readRemote(ctx context.Context, req build.Request, names []string) (*build.Remote, error) {
	if b.chosen == nil {
		return build.ReadRemote(ctx, b.store, b.state, req, names, maxDefinition)
	}
	f, err := b.farm(b.chosen, "quiet")
	if err != nil {
		return nil, err
	}
	return build.ReadRemoteFarm(ctx, b.store, b.state, f, req, names, maxDefinition)
}

// addGitAccess adds what a git repository may ask for, as docker's variables have it.
func (b *baker) addGitAccess(flags *buildOptions) {
	for id, variable := range map[string]string{"GIT_AUTH_TOKEN": "BUILDX_BAKE_GIT_AUTH_TOKEN", "GIT_AUTH_HEADER": "BUILDX_BAKE_GIT_AUTH_HEADER"} {
		if b.Getenv(variable) != "" {
			flags.Secrets = append(flags.Secrets, "id="+id+",env="+variable)
		}
	}
	hasDefault := slices.ContainsFunc(flags.SSH, func(s string) bool { return s == "default" || strings.HasPrefix(s, "default=") })
	if paths := b.Getenv("BUILDX_BAKE_GIT_SSH"); paths != "" && !hasDefault {
		flags.SSH = append(flags.SSH, "default="+paths)
	}
}
