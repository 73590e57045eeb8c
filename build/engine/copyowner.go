//go:build linux

package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/openfile"
	"github.com/moby/sys/user"
	fscopy "github.com/tonistiigi/fsutil/copy"
)

// maxUserFile bounds /etc/passwd and /etc/group of an image, in bytes.
const maxUserFile = 10 << 20

// readOwner is the owner that a file operation asks for: nil for none, and root for a
// name that the file system does not know, as BuildKit has it. users and groups are the
// file systems to look names up in.
func readOwner(o *pb.ChownOpt, users, groups snapshot.Mountable) (*fscopy.User, error) {
	if o == nil {
		return nil, nil
	}
	var owner fscopy.User
	switch u := o.GetUser().GetUser().(type) {
	case *pb.UserOpt_ByName:
		err := readUserFile(users, "/etc/passwd", func(r io.Reader) error {
			found, err := user.ParsePasswdFilter(r, func(e user.User) bool { return e.Name == u.ByName.Name })
			if len(found) > 0 {
				owner.UID, owner.GID = found[0].Uid, found[0].Gid
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	case *pb.UserOpt_ByID:
		owner.UID, owner.GID = int(u.ByID), int(u.ByID)
	}
	switch g := o.GetGroup().GetUser().(type) {
	case *pb.UserOpt_ByName:
		err := readUserFile(groups, "/etc/group", func(r io.Reader) error {
			found, err := user.ParseGroupFilter(r, func(e user.Group) bool { return e.Name == g.ByName.Name })
			if len(found) > 0 {
				owner.GID = found[0].Gid
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	case *pb.UserOpt_ByID:
		owner.GID = int(g.ByID)
	}
	return &owner, nil
}

// readUserFile reads a file of a file system, if it is there.
func readUserFile(m snapshot.Mountable, name string, read func(io.Reader) error) (err error) {
	if m == nil {
		return fmt.Errorf("no file system to read %q of", name)
	}
	root, unmount, err := mountLocally(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	path, err := continuity.RootPath(root, name)
	if err != nil {
		return err
	}
	f, err := openfile.Regular(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return withoutRoots(err, root)
	}
	defer func() { _ = f.Close() }() // only read
	limited := &io.LimitedReader{R: f, N: maxUserFile + 1}
	if err := read(limited); err != nil {
		return err
	}
	if limited.N <= 0 {
		return fmt.Errorf("%q is larger than %d bytes", name, maxUserFile)
	}
	return nil
}

// chownerTo gives everything to an owner; nil lets everybody keep what is theirs.
func chownerTo(owner *fscopy.User) fscopy.Chowner {
	return func(was *fscopy.User) (*fscopy.User, error) {
		if owner == nil {
			return was, nil
		}
		return owner, nil
	}
}
