//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/archiveutil"
)

// Remote is what was read from a git repository, an archive on the web, or a file there.
type Remote struct {
	Files  map[string][]byte // of a repository or an archive, by their names
	Single []byte            // of what is no archive; else nil
}

// ReadRemote reads files of the remote context that r names, those of names that there
// are. A file larger than limit bytes is an error; others are those of [Build].
func ReadRemote(ctx context.Context, store Store, state State, r Request, names []string, limit int64) (*Remote, error) {
	return readRemoteAt(ctx, func(ctx context.Context, do job) error { return onEngine(ctx, store, state, r, do) }, r, names, limit)
}

// ReadRemoteFarm is [ReadRemote] on a node of a farm.
func ReadRemoteFarm(ctx context.Context, store Store, state State, f Farm, r Request, names []string, limit int64) (*Remote, error) {
	return readRemoteAt(ctx, func(ctx context.Context, do job) error { return onAnyNode(ctx, store, state, f, r, do) }, r, names, limit)
}

func readRemoteAt(ctx context.Context, at somewhere, r Request, names []string, limit int64) (*Remote, error) {
	var out *Remote
	err := at(ctx, func(ctx context.Context, c *client.Client, _ *ownEngine, opt client.SolveOpt) error {
		opt.Internal = true
		read := func(ctx context.Context, g gateway.Client) (_ *gateway.Result, err error) {
			out, err = readRemote(ctx, g, r.Context, names, limit)
			return gateway.NewResult(), err
		}
		_, err := solve(ctx, r.Progress, newRecorder(time.Now(), nil), func(status chan *client.SolveStatus) (*client.SolveResponse, error) {
			return c.Build(ctx, opt, "wherry", read, status)
		})
		return err
	})
	return out, err
}

func readRemote(ctx context.Context, g gateway.Client, url string, names []string, limit int64) (*Remote, error) {
	repository, ok, err := dockerui.DetectGitContext(url, nil)
	switch {
	case ok && err != nil:
		return nil, err
	case ok:
		return readFolder(ctx, g, *repository, names, limit)
	}
	web, filename, ok := dockerui.DetectHTTPContext(url)
	if !ok {
		return nil, fmt.Errorf("%q is neither a git repository nor on the web", url)
	}
	ref, err := solveState(ctx, g, *web)
	if err != nil {
		return nil, err
	}
	head, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: filename, Range: &gateway.FileRange{Length: 1024}})
	if err != nil {
		return nil, err
	}
	if archiveutil.IsArchive(head) {
		unpacked := llb.Scratch().File(llb.Copy(*web, filename, "/", &llb.CopyInfo{AttemptUnpack: true}))
		return readFolder(ctx, g, unpacked, names, limit)
	}
	data, err := readBounded(ctx, ref, filename, limit)
	return &Remote{Single: data}, err
}

func readFolder(ctx context.Context, g gateway.Client, from llb.State, names []string, limit int64) (*Remote, error) {
	ref, err := solveState(ctx, g, from)
	if err != nil {
		return nil, err
	}
	out := &Remote{Files: map[string][]byte{}}
	for _, name := range names {
		if _, err := ref.StatFile(ctx, gateway.StatRequest{Path: name}); err != nil {
			continue // it is not there: errors have no type here
		}
		if out.Files[name], err = readBounded(ctx, ref, name, limit); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func solveState(ctx context.Context, g gateway.Client, from llb.State) (gateway.Reference, error) {
	definition, err := from.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := g.Solve(ctx, gateway.SolveRequest{Definition: definition.ToPB()})
	if err != nil {
		return nil, err
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	if ref == nil {
		return nil, errors.New("there is nothing")
	}
	return ref, ref.Evaluate(ctx)
}

func readBounded(ctx context.Context, ref gateway.Reference, name string, limit int64) ([]byte, error) {
	data, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: name, Range: &gateway.FileRange{Length: int(limit) + 1}})
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%q has more than %d bytes", name, limit)
	}
	return data, err
}
