//go:build linux

package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

// folders are sessions for the folders that several targets read: what they read of them
// alike is sent once.
type folders struct {
	sessions map[string]*session.Session // by the key of the sources
	running  errgroup.Group
}

// shareFolders opens the sessions. fail is told of a file that can't be read.
func shareFolders(ctx context.Context, c *client.Client, located []*sources, fail func(error)) (*folders, error) {
	f := &folders{sessions: map[string]*session.Session{}}
	readers := map[string]int{}
	for _, src := range located {
		key := src.sharedKey()
		if readers[key]++; readers[key] != 2 || src.folder == "" {
			continue
		}
		s, err := folderSession(ctx, src, fail)
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.sessions[key] = s
		f.running.Go(func() error { return s.Run(ctx, c.Dialer()) })
	}
	return f, nil
}

func folderSession(ctx context.Context, src *sources, fail func(error)) (*session.Session, error) {
	in := &inputs{mounts: map[string]fsutil.FS{}, masked: src.masked, aside: src.aside}
	if err := in.mount("context", src.folder, fail); err != nil {
		return nil, err
	}
	if src.dockerfile != "" {
		if err := in.mount("dockerfile", src.dockerfile, fail); err != nil {
			return nil, err
		}
	}
	dirs := filesync.StaticDirSource{}
	for name, files := range in.mounts {
		rooted, err := fsutil.NewFilterFS(files, &fsutil.FilterOpt{Map: ownedByRoot})
		if err != nil {
			return nil, err
		}
		dirs[name] = rooted
	}
	s, err := session.NewSession(ctx, src.sharedKey())
	if err != nil {
		return nil, fmt.Errorf("share folders: %w", err)
	}
	s.Allow(filesync.NewFSSyncProvider(dirs))
	return s, nil
}

// ownedByRoot is what BuildKit's client makes of each file of a context.
func ownedByRoot(_ string, s *types.Stat) fsutil.MapResult {
	s.Uid, s.Gid = 0, 0
	return fsutil.MapResultKeep
}

// use has a target's frontend read folders from the session that others read them from.
func (f *folders) use(src *sources, attrs map[string]string) {
	s, ok := f.sessions[src.sharedKey()]
	if !ok {
		return
	}
	attrs["local-sessionid:context"] = s.ID()
	if src.dockerfile != "" {
		attrs["local-sessionid:dockerfile"] = s.ID()
	}
}

func (f *folders) close() error {
	var errs []error
	for _, s := range f.sessions {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, f.running.Wait())...)
}
