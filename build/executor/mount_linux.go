package executor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/selinux"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// cgroupRoot is where the host has its cgroups.
const cgroupRoot = "/sys/fs/cgroup"

// mountRootfs makes the root file system a mount of its own in this namespace, and opens it.
func mountRootfs(p *plan) (step.RootDir, error) {
	// Nothing that is mounted here may show outside; what outside unmounts should go here, too, or it stays busy.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return step.RootDir{}, step.Setup(err, "make mounts private")
	}
	tree, err := cloneTree(p.Rootfs, true)
	if err != nil {
		return step.RootDir{}, step.Setup(err, "clone root file system")
	}
	if !p.Devices {
		if err := setMountAttrs(tree, unix.MOUNT_ATTR_NODEV, false); err != nil {
			return step.RootDir{}, step.Setup(err, "forbid devices on root file system")
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, p.Rootfs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return step.RootDir{}, step.Setup(err, "mount root file system")
	}
	return step.RootDir{FD: tree, Path: p.Rootfs}, nil
}

// cloneTree returns a detached copy of the mount at p.
func cloneTree(p string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, p, flags)
}

func setMountAttrs(fd int, attrs uint64, recursive bool) error {
	if attrs == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: attrs})
}

// attach puts a detached mount onto target.
func attach(tree, target int) error {
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mountAll makes the spec's mounts in their order.
func mountAll(root step.RootDir, p *plan) error {
	for _, m := range p.Mounts {
		err := mountOne(root, m)
		if p.SysFS && m.Type == "sysfs" && errors.Is(err, unix.EPERM) {
			err = attachAt(root, sysFD, m.Target)
		}
		if err != nil {
			return step.Setup(err, "mount %s", m.Target)
		}
		if err := labelRoot(root, m); err != nil {
			return step.Setup(err, "label %s", m.Target)
		}
		if m.Target == "/dev" {
			if err := populateDev(root, p.Nodes); err != nil {
				return err
			}
		}
	}
	return nil
}

// labelRoot gives the root of a mount that has just been made the label that it should have.
func labelRoot(root step.RootDir, m mountPlan) error {
	if m.Label == "" {
		return nil
	}
	fd, err := root.Open(m.Target, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	return unix.Setxattr(step.FDPath(fd), selinux.Xattr, []byte(m.Label), 0)
}

func mountOne(root step.RootDir, m mountPlan) error {
	switch m.Type {
	case "":
		return bindMount(root, m)
	case "cgroup":
		return mountCgroup(root, m)
	case "proc", "sysfs":
		// Their files steer the kernel: masks and read-only paths have to find them where they belong.
		if fd, err := root.OpenHow(m.Target, unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}); err == nil {
			step.Closing(fd)
		} else if errors.Is(err, unix.ELOOP) {
			return errors.New("the image has a symlink there")
		}
	}
	target, err := root.MkdirAll(m.Target, 0, 0)
	if err != nil {
		return err
	}
	defer step.Closing(target)
	return unix.Mount(m.Source, step.FDPath(target), m.Type, m.Flags, m.Data)
}

// bindMount clones the source, restricts the clone, and only then puts it in place.
func bindMount(root step.RootDir, m mountPlan) error {
	tree, err := cloneTree(m.Source, m.Rec)
	if err != nil {
		return fmt.Errorf("source %q: %w", m.Source, err)
	}
	defer step.Closing(tree)
	if err := setMountAttrs(tree, m.Attrs, true); err != nil {
		return err
	}
	return attachAt(root, tree, m.Target)
}

// attachAt puts a detached mount at name, making a folder or an empty file there if there is nothing.
func attachAt(root step.RootDir, tree int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	var target int
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		target, err = root.MkdirAll(name, 0, 0)
	} else {
		target, err = root.Touch(name)
	}
	if err != nil {
		return err
	}
	defer step.Closing(target)
	return attach(tree, target)
}

// mountCgroup shows the cgroups of the step's own cgroup namespace (cgroup v2), or else the host's tree, read-only.
// A host without cgroups has nothing to show.
func mountCgroup(root step.RootDir, m mountPlan) error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		if missing(err) {
			return nil
		}
		return err
	}
	if st.Type == unix.SYSFS_MAGIC {
		return nil
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		target, err := root.MkdirAll(m.Target, 0, 0)
		if err != nil {
			return err
		}
		defer step.Closing(target)
		err = unix.Mount("cgroup", step.FDPath(target), "cgroup2", m.Flags, "")
		if err == nil || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return bindMount(root, mountPlan{Source: cgroupRoot, Target: m.Target, Attrs: m.Attrs | unix.MOUNT_ATTR_RDONLY, Rec: true})
}

// restrict hides the masked paths and makes others read-only. Paths that this kernel does not have are skipped.
func restrict(root step.RootDir, p *plan) error {
	for _, name := range p.Masked {
		if err := onExisting(root, name, func(target int) error { return mask(target, p.SELinux) }); err != nil {
			return step.Setup(err, "mask %s", name)
		}
	}
	for _, name := range p.Readonly {
		if err := onExisting(root, name, makeReadonly); err != nil {
			return step.Setup(err, "make %s read-only", name)
		}
	}
	if p.RootReadonly {
		return step.Setup(setMountAttrs(root.FD, unix.MOUNT_ATTR_RDONLY, false), "make root file system read-only")
	}
	return nil
}

// onExisting opens name and calls f with it, unless there is no such path.
func onExisting(root step.RootDir, name string, f func(target int) error) error {
	target, err := root.Open(name, 0)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer step.Closing(target)
	return f(target)
}

func missing(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// mask covers a folder with an empty read-only tmpfs, and a file with the outer /dev/null (never with the one inside:
// the image could have put anything there, CVE-2025-31133).
func mask(target int, labels selinux.Labels) error {
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		empty := mountPlan{Type: "tmpfs", Data: "nr_blocks=1,nr_inodes=1"}
		empty.takeLabel(labels)
		return unix.Mount("tmpfs", step.FDPath(target), empty.Type, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, empty.Data)
	}
	null, err := cloneDevice(nodePlan{Path: "/dev/null", Major: 1, Minor: 3})
	if err != nil {
		return err
	}
	defer step.Closing(null)
	return attach(null, target)
}

func makeReadonly(target int) error {
	tree, err := unix.OpenTree(target, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer step.Closing(tree)
	if err := setMountAttrs(tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, true); err != nil {
		return err
	}
	return attach(tree, target)
}
