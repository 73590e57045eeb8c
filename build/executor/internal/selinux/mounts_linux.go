package selinux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/identity"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
)

// Xattr is the extended attribute that a file's label is in.
const Xattr = "security.selinux"

// MountData is what mount(2) is told for a new file system of this type, with its files labelled.
func (l Labels) MountData(fsType, data string) string {
	m := withContext(mount.Mount{Type: fsType, Options: strings.Split(data, ",")}, l.Files)
	return strings.TrimPrefix(strings.Join(m.Options, ","), ",")
}

// Source is src, with the files that it mounts labelled.
func (l Labels) Source(src executor.Mountable) executor.Mountable {
	if src == nil || l.Files == "" {
		return src
	}
	return source{src, l}
}

type source struct {
	executor.Mountable
	labels Labels
}

func (s source) Mount(ctx context.Context, readonly bool) (executor.MountableRef, error) {
	ref, err := s.Mountable.Mount(ctx, readonly)
	if err != nil {
		return nil, err
	}
	return labelled{ref, s.labels}, nil
}

type labelled struct {
	executor.MountableRef
	labels Labels
}

func (r labelled) Mount() (list []mount.Mount, release func() error, err error) {
	// A socket may be made, to which the step has to be let: that of an ssh agent.
	err = r.labels.makingSockets(func() (err error) {
		list, release, err = r.MountableRef.Mount()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	list = slices.Clone(list)
	for i, m := range list {
		if list[i], err = r.labels.mount(m); err != nil {
			if release != nil {
				err = errors.Join(err, release())
			}
			return nil, nil, err
		}
	}
	return list, release, nil
}

// mount has the files of one mount labelled. Folders that are bound are in one that is, or are such mounts; files are
// secrets and sockets, made for the step.
func (l Labels) mount(m mount.Mount) (mount.Mount, error) {
	if m.Type == "bind" || m.Type == "rbind" {
		info, err := os.Lstat(m.Source)
		if err != nil || info.IsDir() {
			return m, err
		}
		if err = relabel(m.Source, l.Files); errors.Is(err, unix.ENOTSUP) {
			err = nil // all files there have one label, whatever it is
		}
		return m, err
	}
	return withContext(m, l.Files), nil
}

// withContext has all files of a new file system labelled alike, if that can be said when it is mounted and is not yet.
func withContext(m mount.Mount, files string) mount.Mount {
	isContext := func(o string) bool { return strings.HasPrefix(o, "context=") }
	if o := contextOption(m.Type, files); o != "" && !slices.ContainsFunc(m.Options, isContext) {
		m.Options = append(slices.Clone(m.Options), o)
	}
	return m
}

// contextOption is "" for file systems that have labels of their own, or none.
func contextOption(fsType, files string) string {
	switch fsType {
	case "overlay", "tmpfs", "devpts":
		return label.FormatMountLabel("", files)
	}
	return ""
}

// Snapshots has what steps write to labelled, whatever labels the layers below bring along. What is only shown is left as
// it is: BuildKit compares layers by such mounts, and at an option that it does not know gives up the fast way.
func (d *Domain) Snapshots(s snapshots.Snapshotter) snapshots.Snapshotter {
	if d == nil {
		return s
	}
	return labelledSnapshots{s, d.files}
}

type labelledSnapshots struct {
	snapshots.Snapshotter
	files string
}

func (s labelledSnapshots) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	list, err := s.Snapshotter.Prepare(ctx, key, parent, opts...)
	return s.labelled(list), err
}

func (s labelledSnapshots) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	list, err := s.Snapshotter.Mounts(ctx, key)
	return s.labelled(list), err
}

func (s labelledSnapshots) labelled(list []mount.Mount) []mount.Mount {
	for i, m := range list {
		if slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "upperdir=") }) {
			list[i] = withContext(m, s.files)
		}
	}
	return list
}

// relabel gives a file or folder, and all that is in it, a label.
func relabel(name, files string) error {
	if is, err := selinux.LfileLabel(name); err == nil && is == files {
		return nil
	}
	if err := selinux.Chcon(name, files, true); err != nil {
		return fmt.Errorf("label %q for SELinux: %w", name, err)
	}
	return nil
}

// makingSockets calls f with the sockets that it makes on its own thread labelled as those of the step.
func (l Labels) makingSockets(f func() error) (err error) {
	runtime.LockOSThread() // for good if the label can't be taken back
	if err := selinux.SetSocketLabel(l.Process); err != nil {
		return err
	}
	err = f()
	if back := selinux.SetSocketLabel(""); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

// Pipe is a pipe that lies in a labelled folder for the moment, and so is labelled alike: an ordinary one has the label
// of who makes it, which a step may not be allowed to write to.
func Pipe(folder string) (r, w *os.File, err error) {
	name := filepath.Join(folder, "pipe-"+identity.NewID())
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, nil, &os.PathError{Op: "mkfifo", Path: name, Err: err}
	}
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	both, err := os.OpenFile(name, os.O_RDWR, 0) // or each end would wait for the other
	if err != nil {
		return nil, nil, err
	}
	defer both.Close()
	if r, err = os.OpenFile(name, os.O_RDONLY, 0); err != nil {
		return nil, nil, err
	}
	if w, err = os.OpenFile(name, os.O_WRONLY, 0); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return r, w, nil
}
