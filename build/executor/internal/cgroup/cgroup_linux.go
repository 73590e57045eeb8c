package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/cgroups"
	cgroupfs "github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	"golang.org/x/sys/unix"
)

// prefix of a group's name; the pid of its engine follows, and then what it is of.
const prefix = "wherry-"

// NotDelegatedError says that this process may not divide the control group that it is in, or the one that was asked
// for: then there are no limits, and errors.Is finds the kernel's reason.
type NotDelegatedError struct{ Err error }

func (e *NotDelegatedError) Error() string {
	return "limits need a control group that may be divided here: " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *NotDelegatedError) Unwrap() error { return e.Err }

// Group is the control group of one step.
type Group struct {
	manager cgroups.Manager
}

// New makes a group for what id names. parent is the group that it is made in: absolute from the root of the hierarchy,
// relative to the group of this process, or "" for that one. limits may be nil. The error may be a *NotDelegatedError.
func New(id, parent string, limits *pb.LinuxResources) (*Group, error) {
	config := &cgroups.Cgroup{Resources: resources(limits)}
	var (
		g   Group
		err error
	)
	name := prefix + strconv.Itoa(os.Getpid()) + "-" + id
	if cgroups.IsCgroup2UnifiedMode() {
		g.manager, err = newUnified(config, parent, name)
	} else {
		g.manager, err = newLegacy(config, parent, name)
	}
	if err != nil {
		return nil, refused(err)
	}
	if err = g.manager.Apply(-1); err == nil {
		err = g.manager.Set(config.Resources)
	}
	if err != nil {
		return nil, errors.Join(refused(err), g.Close())
	}
	return &g, nil
}

// Add puts a process into the group, with all that it will start.
func (g *Group) Add(pid int) error { return g.manager.AddPid("", pid) }

// OutOfMemory says whether a process of the group was killed because its memory was used up.
func (g *Group) OutOfMemory() bool {
	n, err := g.manager.OOMKillCount()
	return err == nil && n > 0
}

// Close removes the group. Its processes have ended.
func (g *Group) Close() error { return g.manager.Destroy() }

// refused tells apart what this process may not do from what is wrong with the limits.
func refused(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrNotExist) {
		controller, _, _ := strings.Cut(filepath.Base(at.Path), ".")
		return &NotDelegatedError{fmt.Errorf("the controller %q is not handed down: %w", controller, at.Err)}
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EBUSY) {
		return &NotDelegatedError{err}
	}
	return fmt.Errorf("set limits: %w", err)
}

func resources(l *pb.LinuxResources) *cgroups.Resources {
	r := &cgroups.Resources{SkipDevices: true}
	if l == nil {
		return r
	}
	r.Memory, r.MemorySwap = l.Memory, l.MemorySwap
	r.CpuQuota, r.CpuPeriod = l.CpuQuota, l.CpuPeriod
	r.CpusetCpus, r.CpusetMems = l.CpusetCpus, l.CpusetMems
	if l.CpuShares != 0 {
		r.CpuShares, r.CpuWeight = l.CpuShares, cgroups.ConvertCPUSharesToCgroupV2Value(l.CpuShares)
	}
	return r
}

// newUnified takes a folder of version 2. A group that has processes can't hand controllers down, so the new one stands
// beside that of this process, not below it; at the root of what a container sees it makes room first.
func newUnified(config *cgroups.Cgroup, parent, name string) (cgroups.Manager, error) {
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	if own[""] == "/" && !filepath.IsAbs(parent) {
		if err := vacate(fs2.UnifiedMountpoint); err != nil {
			return nil, err
		}
	}
	base := filepath.Join(fs2.UnifiedMountpoint, filepath.Dir(own[""]), filepath.Clean("/"+parent))
	if filepath.IsAbs(parent) {
		base = filepath.Join(fs2.UnifiedMountpoint, filepath.Clean(parent))
	}
	sweep(base)
	return fs2.NewManager(config, filepath.Join(base, name))
}

// vacate moves the processes of a container's topmost group into one below it. The machine's own root may have
// processes.
func vacate(root string) error {
	if _, err := os.Stat(filepath.Join(root, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	pids, err := cgroups.GetPids(root)
	if err != nil {
		return err
	}
	leaf := filepath.Join(root, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, pid := range pids {
		if err := cgroups.WriteCgroupProc(leaf, pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// newLegacy takes folders of version 1, of those controllers alone that limits are about.
func newLegacy(config *cgroups.Cgroup, parent, name string) (cgroups.Manager, error) {
	config.Path = filepath.Join(parent, name)
	all, err := cgroupfs.NewManager(config, nil)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, controller := range []string{"memory", "cpu", "cpuset"} {
		if path, ok := all.GetPaths()[controller]; ok {
			paths[controller] = path
			sweep(filepath.Dir(path))
		}
	}
	return cgroupfs.NewManager(config, paths)
}

// sweep removes the groups of engines that were killed. One that has processes stays.
func sweep(base string) {
	groups, _ := filepath.Glob(filepath.Join(base, prefix+"*")) // the pattern is well-formed
	for _, dir := range groups {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = unix.Rmdir(dir) // else the next one tries
		}
	}
}
