//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/wherry-oci/wherry/build/bake"
)

// cwdPrefix marks a file as one of this machine, wherever the definition is from.
const cwdPrefix = "cwd://"

// readDefinition reads the files of a definition.
func (b *baker) readDefinition(ctx context.Context, o bakeOptions) (*bake.Definition, error) {
	files, err := b.bakeFiles(ctx, o)
	if err != nil {
		return nil, err
	}
	vars := map[string]string{}
	for _, v := range o.Vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, bakeUsage("invalid --var %q: want NAME=VALUE", v)
		}
		vars[name] = value
	}
	dotenv, err := os.ReadFile(".env") // compose's
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.EISDIR) {
		return nil, err
	}
	return bake.Parse(files, bake.Options{
		Vars: vars, Environ: b.environ(), Dotenv: dotenv, Untold: isTrue(b.Getenv("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")),
		Builtin: bakeBuiltins(o.Caller),
		Notice:  func(msg string) { b.note(printable(msg)) },
		Open:    func(name string) ([]byte, error) { return b.readBakeFile(ctx, name) },
	})
}

// maxDefinition bounds a file of a definition, in bytes.
const maxDefinition = 2 << 20

// bakeFiles reads the files that were named, by a flag or by BUILDX_BAKE_FILE, or those
// with docker's default names that are there. Those that a remote definition is made of
// are read where it is, but for "cwd://FILE".
func (b *baker) bakeFiles(ctx context.Context, o bakeOptions) ([]bake.File, error) {
	names := o.Files
	if len(names) == 0 && b.Getenv("BUILDX_BAKE_FILE") != "" {
		names = strings.Split(b.Getenv("BUILDX_BAKE_FILE"), firstOf(b.Getenv("BUILDX_BAKE_PATH_SEPARATOR"), ":"))
	}
	var files []bake.File
	if o.Remote != "" {
		var err error
		if files, err = b.remoteFiles(ctx, o, names); err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasPrefix(name, cwdPrefix) })
	}
	optional := len(names) == 0 && o.Remote == ""
	if optional {
		names = bake.DefaultFiles()
	}
	for _, name := range names {
		data, err := b.readBakeFile(ctx, strings.TrimPrefix(name, cwdPrefix))
		if optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, bake.File{Name: name, Data: data})
	}
	if len(files) == 0 {
		return nil, withHint(errors.New("couldn't find a bake definition"), "%s bake -f FILE", program)
	}
	return files, nil
}

func (e *env) readBakeFile(ctx context.Context, name string) ([]byte, error) {
	in := e.stdin(ctx)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxDefinition+1))
	if err == nil && len(data) > maxDefinition {
		err = fmt.Errorf("%q: a definition has at most %d bytes", name, maxDefinition)
	}
	return data, err
}
