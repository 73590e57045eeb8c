package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
)

// Cleanups are undone in reverse order; their errors are joined to the result, since a mount that stays is a leak.
type Cleanups []func() error

// Add has f called before all that was added earlier.
func (c *Cleanups) Add(f func() error) { *c = append(*c, f) }

// Run undoes everything and joins what fails to err.
func (c *Cleanups) Run(err *error) {
	for i := len(*c) - 1; i >= 0; i-- {
		*err = errors.Join(*err, (*c)[i]())
	}
}

// CheckMeta refuses what this executor can't do, so that no request is dropped in silence.
func CheckMeta(meta executor.Meta) error {
	switch {
	case len(meta.Args) == 0:
		return errors.New("step has no command")
	case meta.Proxy != nil:
		return errors.New("proxy network provider is not available")
	case len(meta.CDIDevices) > 0:
		return errors.New("CDI devices are not available")
	}
	return nil
}

// EtcFiles has BuildKit write the resolv.conf and hosts that the step will see, into the folder root, and returns
// their paths.
func EtcFiles(ctx context.Context, root string, dns *oci.DNSConfig, meta executor.Meta, undo *Cleanups) (resolvConf, hosts string, err error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return "", "", err
	}
	undo.Add(dir.Close)
	if resolvConf, err = oci.GetResolvConf(ctx, dir, nil, dns, meta.NetMode); err != nil {
		return "", "", fmt.Errorf("make resolv.conf: %w", err)
	}
	hosts, clean, err := oci.GetHostsFile(ctx, dir, meta.ExtraHosts, nil, meta.Hostname)
	if err != nil {
		return "", "", fmt.Errorf("make hosts file: %w", err)
	}
	if clean != nil {
		undo.Add(func() error { clean(); return nil })
	}
	return filepath.Join(root, resolvConf), filepath.Join(root, hosts), nil
}

// EnsureWorkdir makes a missing working directory in the root file system itself, so that it stays in the layer.
func EnsureWorkdir(rootfs, cwd string, p *Process) error {
	root, err := OpenRootDir(rootfs)
	if err != nil {
		return Setup(err, "open root file system")
	}
	defer Closing(root.FD)
	fd, err := root.MkdirAll(cwd, int(p.UID), int(p.GID))
	if err != nil {
		return Setup(err, "make working directory %q", cwd)
	}
	Closing(fd)
	return nil
}

// MakeFolder makes an executor's own folder, and returns its path without symlinks: the kernel prints mount points so.
func MakeFolder(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	return dir, sweep(dir)
}

// sweep removes what runs before have left, of which nobody uses anything: BuildKit remakes its resolv.conf only when that
// of the host is newer, and a killed run leaves the empty folders on which it had mounted something for itself alone. What
// is in such a folder stays.
func sweep(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := filepath.Join(dir, e.Name())
		if !e.IsDir() {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		_ = os.Remove(filepath.Join(name, "rootfs"))
		_ = os.Remove(name)
	}
	return nil
}
