package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// repair has the registries mend the store. What was done is data, and stays
// done whatever follows: it is returned beside an error.
func (e *env) repair(ctx context.Context, store *layout.Store, o layout.CheckOptions) (*layout.Report, []layout.Mended, error) {
	client, err := e.registryClient(nil)
	if err != nil {
		return nil, nil, err
	}
	var done []layout.Mended
	report, err := store.Repair(ctx, layout.RepairOptions{
		CheckOptions: o,
		Origin: func(ctx context.Context, name string) (layout.Source, error) {
			ref, err := reference.ParseNormalizedNamed(name)
			if err != nil {
				return nil, err
			}
			from, err := client.Repository(ctx, ref)
			if err != nil {
				return nil, err
			}
			return origin{from}, nil
		},
		Told: func(m layout.Mended) { done = append(done, m) },
	})
	return report, done, err
}

// origin is a repository in the words of package layout.
type origin struct{ *registry.Image }

// Open makes an fs.ErrNotExist of what the registry does not have.
func (o origin) Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := o.Image.Open(ctx, d, offset)
	if _, gone := errors.AsType[*registry.NotFoundError](err); gone {
		return nil, &goneError{err}
	}
	return r, err
}

type goneError struct{ err error }

func (g *goneError) Error() string        { return g.err.Error() }
func (g *goneError) Is(target error) bool { return target == fs.ErrNotExist }

// tellMended prints what was done on stdout, and what could not be on stderr.
func tellMended(e *env, done []layout.Mended) {
	for _, m := range done {
		whose := someSubjects(m.Images)
		switch m.Kind {
		case layout.Fetched:
			fmt.Fprintf(&e.Out, "Fetched: %s %s of %s\n", m.Part, m.Digest, familiarString(m.From))
		case layout.Deleted:
			fmt.Fprintf(&e.Out, "Deleted: %s %s, damaged and needed by no image\n", m.Part, m.Digest)
		case layout.Dropped:
			fmt.Fprintf(&e.Out, "Dropped: %s: %s\n", whose, printable(m.Err.Error()))
		case layout.Rebuilt:
			fmt.Fprintf(&e.Out, "Rebuilt: index.json%s\n", asideOf(m.Path))
		case layout.Regained:
			fmt.Fprintf(&e.Out, "Recovered: %s, which has lost its name\n", m.Digest)
		case layout.Unhad:
			e.say("note: not fetched: %s %s of %s: %s", m.Part, m.Digest, whose, printable(m.Err.Error()))
		}
	}
}

func asideOf(path string) string {
	if path == "" {
		return ""
	}
	return ", the old one is now " + path
}
