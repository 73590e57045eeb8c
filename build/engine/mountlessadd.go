//go:build linux

package engine

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"os/exec"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/solver/llbsolver/ops/fileoptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/go-archive/compression"
	fscopy "github.com/tonistiigi/fsutil/copy"
)

// archiveBackend unpacks archives for ADD where BuildKit's backend can't: without a mount
// namespace, and where no devices can be made. The rest is the other backend's.
type archiveBackend struct {
	fileoptypes.Backend
	files *storage
}

func (b *archiveBackend) Copy(ctx context.Context, from, to, user, group fileoptypes.Mount, a *pb.FileActionCopy) (err error) {
	if !a.AttemptUnpackDockerCompatibility {
		return b.Backend.Copy(ctx, from, to, user, group, a)
	}
	src, unmountFrom, err := mountLocally(mountableOf(from))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmountFrom()) }()
	paths := []string{cleanCopyPath(a.Src)}
	if a.AllowWildcard {
		if paths, err = fscopy.ResolveWildcards(src, paths[0], a.FollowSymlink); err != nil {
			return withoutRoots(err, src)
		}
	}
	plain := a.CloneVT()
	plain.AttemptUnpackDockerCompatibility = false
	if len(paths) == 0 { // that is an error, or not
		return b.Backend.Copy(ctx, from, to, user, group, plain)
	}
	plain.AllowWildcard = false
	for _, plain.Src = range paths {
		file, err := archiveAt(src, plain.Src)
		switch {
		case err != nil:
			return err
		case file == "":
			err = b.Backend.Copy(ctx, from, to, user, group, plain)
		default:
			err = b.unpack(ctx, file, to, user, group, a)
		}
		if err != nil {
			return withoutRoots(err, src)
		}
	}
	return nil
}

// archiveAt is where the archive is that a path names; "" if it is none. As BuildKit's, it
// asks the decompressor, which for xz is a program.
func archiveAt(root, path string) (string, error) {
	file, err := continuity.RootPath(root, path)
	if err != nil {
		return "", withoutRoots(err, root)
	}
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return "", nil // who copies it says what is wrong
	}
	f, err := os.Open(file)
	if err != nil {
		return "", nil // as above
	}
	defer func() { _ = f.Close() }() // only read
	plain, err := compression.DecompressStream(f)
	if err != nil {
		if missing, ok := errors.AsType[*exec.Error](err); ok {
			return "", missing
		}
		return "", nil
	}
	defer func() { _ = plain.Close() }() // only read
	if _, err := tar.NewReader(plain).Next(); err != nil {
		return "", nil // so it is a file like others
	}
	return file, nil
}
