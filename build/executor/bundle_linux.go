package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/util/network"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// bundle is what a step is started from.
type bundle struct {
	rootfs string
	plan   *plan
}

// cleanups are undone in reverse order; their errors are joined to the result, since a mount that stays is a leak.
type cleanups []func() error

func (c *cleanups) add(f func() error) { *c = append(*c, f) }

func (c *cleanups) run(err *error) {
	for i := len(*c) - 1; i >= 0; i-- {
		*err = errors.Join(*err, (*c)[i]())
	}
}

// withBundle mounts the root file system, makes the plan, calls f, and takes everything down again: mounts, the
// targets that were made for them, and files of this step alone.
func (e *stepExecutor) withBundle(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, meta executor.Meta, f func(*bundle) error) (err error) {
	if err := checkMeta(meta); err != nil {
		return err
	}
	var undo cleanups
	defer undo.run(&err)

	in := specInput{id: id, mounts: mounts, rootReadonly: root.Readonly, rootless: e.opts.Rootless, single: e.opts.SingleID, sharedPIDNamespace: e.opts.HostPID}
	provider, ok := e.opts.Networks[meta.NetMode]
	if !ok {
		return fmt.Errorf("network mode %s is not available", meta.NetMode)
	}
	if in.net, err = provider.New(ctx, meta.Hostname, network.NamespaceOptions{}); err != nil {
		return err
	}
	undo.add(in.net.Close)
	if err := e.etcFiles(ctx, meta, &in, &undo); err != nil {
		return err
	}
	if in.rootfs, err = e.mountRoot(ctx, id, root, &undo); err != nil {
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
	undo.add(stubCleaner(ctx, in.rootfs, stubs, meta.RemoveMountStubsRecursive))

	if in.uid, in.gid, in.supplementary, err = oci.GetUser(in.rootfs, meta.User); err != nil {
		return fmt.Errorf("find user %q: %w", meta.User, err)
	}
	p, release, err := generatePlan(ctx, meta, in)
	if err != nil {
		return err
	}
	undo.add(func() error { release(); return nil })
	if err := ensureWorkdir(in.rootfs, meta.Cwd, p); err != nil {
		return err
	}
	p.Supervise = e.opts.HostPID
	if hasApt {
		p.Mounts = append(p.Mounts, apt)
	}
	return f(&bundle{rootfs: in.rootfs, plan: p})
}

// etcFiles has BuildKit write the resolv.conf and hosts that the step will see.
func (e *stepExecutor) etcFiles(ctx context.Context, meta executor.Meta, in *specInput, undo *cleanups) (err error) {
	dir, err := os.OpenRoot(e.opts.Root)
	if err != nil {
		return err
	}
	undo.add(dir.Close)
	resolv, err := oci.GetResolvConf(ctx, dir, nil, e.opts.DNS, meta.NetMode)
	if err != nil {
		return fmt.Errorf("make resolv.conf: %w", err)
	}
	hosts, clean, err := oci.GetHostsFile(ctx, dir, meta.ExtraHosts, nil, meta.Hostname)
	if err != nil {
		return fmt.Errorf("make hosts file: %w", err)
	}
	if clean != nil {
		undo.add(func() error { clean(); return nil })
	}
	in.resolvConf, in.hosts = filepath.Join(e.opts.Root, resolv), filepath.Join(e.opts.Root, hosts)
	return nil
}

// mountRoot mounts the step's root file system below the bundle's folder and returns where.
func (e *stepExecutor) mountRoot(ctx context.Context, id string, root executor.Mount, undo *cleanups) (string, error) {
	ref, err := root.Src.Mount(ctx, false)
	if err != nil {
		return "", err
	}
	list, release, err := ref.Mount()
	if err != nil {
		return "", err
	}
	if release != nil {
		undo.add(release)
	}
	dir := filepath.Join(e.opts.Root, id)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", err
	}
	undo.add(func() error { return os.Remove(dir) })
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o700); err != nil {
		return "", err
	}
	undo.add(func() error { return os.Remove(rootfs) })
	if err := mount.All(list, rootfs); err != nil {
		return "", step.Setup(err, "mount root file system")
	}
	undo.add(func() error { return step.Setup(mount.Unmount(rootfs, 0), "unmount root file system") })
	return rootfs, nil
}

// stubCleaner removes, after the step, what was made in the root file system only to mount something on it. BuildKit's
// cleaner does that for the step's mounts and files; what we mount ourselves is named to it as if it were such a mount.
func stubCleaner(ctx context.Context, rootfs string, mounts []executor.Mount, recursive bool) func() error {
	clean := executor.MountStubsCleaner(context.WithoutCancel(ctx), rootfs, mounts, recursive)
	return func() error { clean(); return nil }
}

// ensureWorkdir makes a missing working directory in the root file system itself, so that it stays in the layer.
func ensureWorkdir(rootfs, cwd string, p *plan) error {
	root, err := step.OpenRootDir(rootfs)
	if err != nil {
		return step.Setup(err, "open root file system")
	}
	defer step.Closing(root.FD)
	fd, err := root.MkdirAll(cwd, int(p.UID), int(p.GID))
	if err != nil {
		return step.Setup(err, "make working directory %q", cwd)
	}
	step.Closing(fd)
	return nil
}
