//go:build linux

package engine

import (
	"context"
	"errors"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source"
)

// remoteSource is BuildKit's source of a URL or a git repository; what fails there comes
// back as a [*FileError], without BuildKit's internal steps around it.
type remoteSource struct{ source.Source }

func (s remoteSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, vtx solver.Vertex) (source.SourceInstance, error) {
	inst, err := s.Source.Resolve(ctx, id, sm, vtx)
	return remoteInstance{inst}, asFileError(err)
}

type remoteInstance struct{ source.SourceInstance }

func (i remoteInstance) CacheKey(ctx context.Context, jc solver.JobContext, index int) (key, pin string, opts solver.CacheOpts, done bool, err error) {
	key, pin, opts, done, err = i.SourceInstance.CacheKey(ctx, jc, index)
	return key, pin, opts, done, asFileError(err)
}

func (i remoteInstance) Snapshot(ctx context.Context, jc solver.JobContext) (cache.ImmutableRef, error) {
	ref, err := i.SourceInstance.Snapshot(ctx, jc)
	return ref, asFileError(err)
}

func asFileError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return &FileError{Reason: err.Error(), cause: err}
}

// noGit stands for repositories where git is not installed.
type noGit struct{}

func (noGit) Schemes() []string { return []string{"git"} }

func (noGit) Identifier(string, string, map[string]string, *pb.Platform) (source.Identifier, error) {
	return nil, &FileError{Reason: "git is not installed"}
}

func (noGit) Resolve(context.Context, source.Identifier, *session.Manager, solver.Vertex) (source.SourceInstance, error) {
	return nil, &FileError{Reason: "git is not installed"}
}
