package executor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// bundle is what a step is started from.
type bundle struct {
	rootfs string
	plan   *plan
}

// withBundle mounts the root file system, makes the plan, calls f, and takes everything down again: mounts, the
// targets that were made for them, and files of this step alone.
func (e *stepExecutor) withBundle(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, meta executor.Meta, f func(*bundle) error) (err error) {
	if err := step.CheckMeta(meta); err != nil {
		return err
	}
	var undo step.Cleanups
	defer undo.Run(&err)

	in := specInput{id: id, mounts: mounts, rootReadonly: root.Readonly, rootless: e.opts.Rootless, single: e.opts.SingleID, sharedPIDNamespace: e.opts.HostPID}
	provider, ok := e.opts.Networks[meta.NetMode]
	if !ok {
		return fmt.Errorf("network mode %s is not available", meta.NetMode)
	}
	if in.net, err = provider.New(ctx, meta.Hostname, network.NamespaceOptions{}); err != nil {
		return err
	}
	undo.Add(in.net.Close)
	if in.resolvConf, in.hosts, err = step.EtcFiles(ctx, e.opts.Root, e.opts.DNS, meta, &undo); err != nil {
		return err
	}
	if meta.SecurityMode != pb.SecurityMode_INSECURE {
		var release func()
		if in.labels, release, err = e.opts.Domain.Labels(); err != nil {
			return err
		}
		undo.Add(func() error { release(); return nil })
	}
	root.Src = in.labels.Source(root.Src)
	began := time.Now()
	var folder string
	if in.rootfs, folder, err = e.mountRoot(ctx, id, root, &undo); err != nil {
		return err
	}
	apt, hasApt, err := e.aptMount(in.rootfs, mounts)
	if err != nil {
		return err
	}
	stubs := append([]executor.Mount{{Dest: "/dev"}, {Dest: "/proc"}, {Dest: "/sys"}}, mounts...)
	if hasApt {
		stubs = append(stubs, executor.Mount{Dest: aptFile})
	}
	undo.Add(stubCleaner(ctx, in.rootfs, stubs, meta.RemoveMountStubsRecursive))

	if in.uid, in.gid, in.supplementary, err = oci.GetUser(in.rootfs, meta.User); err != nil {
		return fmt.Errorf("find user %q: %w", meta.User, err)
	}
	if e.opts.Owners != nil && !root.Readonly {
		undo.Add(func() error { return e.opts.Owners.Adopt(folder, began, in.uid, in.gid) })
	}
	p, release, err := generatePlan(ctx, meta, in)
	if err != nil {
		return err
	}
	undo.Add(func() error { release(); return nil })
	if err := step.EnsureWorkdir(in.rootfs, meta.Cwd, &p.Process); err != nil {
		return err
	}
	p.Supervise = e.opts.HostPID
	if err := e.planFormats(p); err != nil {
		return err
	}
	if !e.opts.Rootless && !e.opts.OwnProfile && meta.SecurityMode != pb.SecurityMode_INSECURE {
		p.AppArmor = e.appArmor()
	}
	if err := e.planOwners(p); err != nil {
		return err
	}
	if hasApt {
		p.Mounts = append(p.Mounts, apt)
	}
	return f(&bundle{rootfs: in.rootfs, plan: p})
}

// mountRoot mounts the step's root file system below the bundle's folder and returns where, and which folder it is.
func (e *stepExecutor) mountRoot(ctx context.Context, id string, root executor.Mount, undo *step.Cleanups) (rootfs, folder string, err error) {
	ref, err := root.Src.Mount(ctx, false)
	if err != nil {
		return "", "", err
	}
	list, release, err := ref.Mount()
	if err != nil {
		return "", "", err
	}
	if release != nil {
		undo.Add(release)
	}
	dir := filepath.Join(e.opts.Root, id)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", "", err
	}
	undo.Add(func() error { return os.Remove(dir) })
	rootfs = filepath.Join(dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o700); err != nil {
		return "", "", err
	}
	undo.Add(func() error { return os.Remove(rootfs) })
	if err := mount.All(list, rootfs); err != nil {
		return "", "", step.Setup(err, "mount root file system")
	}
	undo.Add(func() error { return step.Setup(mount.Unmount(rootfs, 0), "unmount root file system") })
	if len(list) == 1 {
		folder = list[0].Source
	}
	return rootfs, folder, nil
}

// stubCleaner removes, after the step, what was made in the root file system only to mount something on it. BuildKit's
// cleaner does that for the step's mounts and files; what we mount ourselves is named to it as if it were such a mount.
func stubCleaner(ctx context.Context, rootfs string, mounts []executor.Mount, recursive bool) func() error {
	clean := executor.MountStubsCleaner(context.WithoutCancel(ctx), rootfs, mounts, recursive)
	return func() error { clean(); return nil }
}
