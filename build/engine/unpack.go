//go:build linux

package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/llbsolver/ops/fileoptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/go-archive"
	"github.com/moby/go-archive/chrootarchive"
	"github.com/moby/go-archive/compression"
	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/wherry-oci/wherry/build/handover"
)

// unpack unpacks an archive into the folder that an ADD names, which it makes.
func (b *archiveBackend) unpack(ctx context.Context, file string, to, user, group fileoptypes.Mount, a *pb.FileActionCopy) (err error) {
	owner, err := readOwner(a.Owner, mountableOf(user), mountableOf(group))
	if err != nil {
		return err
	}
	root, unmount, err := mountLocally(mountableOf(to))
	if err != nil {
		return err
	}
	defer func() { err = withoutRoots(errors.Join(err, unmount()), root) }()
	dest, err := continuity.RootPath(root, cleanCopyPath(a.Dest))
	if err != nil {
		return err
	}
	if err := b.makeFolders(dest, owner, a.Timestamp); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	plain, err := compression.DecompressStream(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	left := &leftOut{all: b.files.noDevices()}
	if !b.files.mountless && !b.files.aside {
		err = left.untar(plain, dest, owner)
	} else {
		err = b.files.folders.Unpack(ctx, dest, plain, func(h *tar.Header) (bool, error) {
			if owner != nil {
				h.Uid, h.Gid = owner.UID, owner.GID
			}
			return h.Typeflag != tar.TypeXGlobalHeader && !left.out(h), nil
		})
	}
	if err == nil {
		left.tell(ctx, path.Base(a.Src))
	}
	return err
}

// makeFolders makes the folder at path and what is missing above it.
func (b *archiveBackend) makeFolders(path string, owner *fscopy.User, timestamp int64) error {
	var when *time.Time
	if timestamp != -1 {
		t := time.Unix(0, timestamp)
		when = &t
	}
	if !b.files.aside {
		_, err := fscopy.MkdirAll(path, 0o755, chownerTo(owner), when)
		return err
	}
	made, err := fscopy.MkdirAll(path, 0o755, nil, when)
	if err != nil || owner == nil {
		return err
	}
	for _, dir := range made {
		if err := b.files.folders.SetOwner(dir, handover.Owner{UID: owner.UID, GID: owner.GID, Mode: 0o755}); err != nil {
			return err
		}
	}
	return nil
}

// leftOut are the devices of an archive that are not made, as docker does not make those
// of a layer without root on the machine.
type leftOut struct {
	all   bool // devices can't be made
	names []string
	more  int
}

// maxLeftOut is how many devices are named.
const maxLeftOut = 5

// out says whether the entry has to be left out, and notes it.
func (l *leftOut) out(h *tar.Header) bool {
	if !l.all || h.Typeflag != tar.TypeChar && h.Typeflag != tar.TypeBlock {
		return false
	}
	if len(l.names) < maxLeftOut {
		l.names = append(l.names, path.Join("/", h.Name)[1:])
	} else {
		l.more++
	}
	return true
}

// untar unpacks as BuildKit's backend does, but for the devices.
func (l *leftOut) untar(tarball io.Reader, dest string, owner *fscopy.User) error {
	opts := &archive.TarOptions{BestEffortXattrs: true, InUserNS: l.all}
	if owner != nil {
		opts.ChownOpts = &archive.ChownOpts{UID: owner.UID, GID: owner.GID}
	}
	r, w := io.Pipe()
	listed := make(chan struct{})
	go func() {
		defer close(listed)
		entries := tar.NewReader(r)
		for h, err := entries.Next(); err == nil; h, err = entries.Next() {
			l.out(h)
		}
		_, _ = io.Copy(io.Discard, r) // what is wrong with it is found by who unpacks it
	}()
	err := chrootarchive.UntarUncompressed(io.TeeReader(tarball, w), dest, opts)
	_ = w.Close() // of a pipe can't fail
	<-listed
	return err
}

// tell warns, once an archive, of what it lacks.
func (l *leftOut) tell(ctx context.Context, name string) {
	w, ok, _ := progress.NewFromContext(ctx)
	if !ok || len(l.names) == 0 {
		return
	}
	text := fmt.Sprintf("devices can't be made here, and were left out of what %q has: %s", name, strings.Join(l.names, ", "))
	if l.more > 0 {
		text += fmt.Sprintf(" and %d more", l.more)
	}
	_ = w.Write(identity.NewID(), client.VertexWarning{Level: 1, Short: []byte(text)})
	_ = w.Close()
}
