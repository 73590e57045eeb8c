package selinux

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/identity"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// NotLabelledError says why steps keep the label that SELinux gives to this process, and may do all that it may.
type NotLabelledError struct {
	Own    string // that label's type
	Reason string
	Hint   string // the command that would change it; "" where none is known
}

// Error has all but the hint.
func (e *NotLabelledError) Error() string {
	return "steps keep wherry's own SELinux label, " + e.Own + ": " + e.Reason
}

// Domain is what SELinux takes steps for. A nil one takes them for what this process is.
type Domain struct {
	process, files string // labels, without categories
	// categories says that the processes of each step get two of their own, which keep those of others from them. Its
	// files have none: they are for later steps as well, and the build cache compares labels. So it is only where what is
	// made in a folder has the folder's categories, and not those of who makes it.
	categories bool
}

// Find asks the policy in force for the domain of containers (lxc_contexts(5)), which docker and podman use as well. It
// is nil where SELinux is not in force, and, with a *NotLabelledError, where this process may not start such, as in a
// container. What is labelled will be in the file system of dir, which exists. With userNS steps have no rights but in a
// user namespace.
func Find(dir string, userNS bool) (*Domain, error) {
	own := currentLabel()
	if own == "" {
		return nil, nil
	}
	keep := func(reason string) (*Domain, error) { return nil, &NotLabelledError{Own: typeOf(own), Reason: reason} }
	process, files, err := label.InitLabels(nil) // "" where the library finds no SELinux
	if err != nil {
		return nil, err
	}
	defer selinux.ReleaseLabel(process)
	switch {
	case !selinux.GetEnabled():
		return keep("the policy can't be asked from in here")
	case process == "":
		return keep("the policy has no label for containers")
	case typeOf(process) == typeOf(own):
		return keep("that is what containers have")
	}
	if has, err := hasLabels(dir); err != nil {
		return nil, err
	} else if !has {
		return keep("the file system of " + dir + " has no labels")
	}
	d := &Domain{process: shared(process), files: shared(files)}
	if err := missing(own, d.process, d.files, userNS); err != nil {
		return nil, &NotLabelledError{Own: typeOf(own), Reason: err.Error(), Hint: hint(own, err)}
	}
	d.categories = inherited(process, d.files) && missing(own, process, files, userNS) == nil
	return d, nil
}

// currentLabel is what SELinux takes this process for; "" where it is not in force.
func currentLabel() string {
	text, err := os.ReadFile("/proc/self/attr/current")
	if own := strings.TrimRight(string(text), "\n\x00"); err == nil && strings.Count(own, ":") > 1 {
		return own
	}
	return "" // other modules tell other things there, or nobody does
}

// Type is that of a step's processes, which is what policies are about; "" for those of this process.
func (d *Domain) Type() string {
	if d == nil {
		return ""
	}
	return typeOf(d.process)
}

// LabelFolder gives a folder, and all that is in it and will be, the label of the files of steps. Where it has that
// already nothing else is looked at.
func (d *Domain) LabelFolder(dir string) error {
	if d == nil {
		return nil
	}
	return relabel(dir, d.files)
}

// Executable is a program that steps can execute: the file itself, or else a copy of it in folder, which is labelled.
func (d *Domain) Executable(file, folder string) (string, error) {
	if d == nil {
		return file, nil
	}
	is, err := selinux.FileLabel(file)
	if err != nil {
		return "", err
	}
	denied, err := access{d.process, is, "file", []string{"execute", "map", "read"}}.denied()
	if err != nil || len(denied) == 0 {
		return file, err
	}
	return copyProgram(file, folder)
}

// copyProgram makes a copy of a program, unless this process has already.
func copyProgram(file, folder string) (string, error) {
	name := filepath.Join(folder, fmt.Sprintf("%x", sha256.Sum256([]byte(file))))
	if _, err := os.Lstat(name); err == nil {
		return name, nil
	}
	part := filepath.Join(folder, "program-"+identity.NewID())
	err := fs.CopyFile(part, file)
	if err == nil {
		err = errors.Join(os.Chmod(part, 0o755), os.Rename(part, name))
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(part))
	}
	return name, nil
}

// Labels are those of one step. Both are "" where it has none of its own.
type Labels struct {
	Process string // of its processes, keys and the sockets that are made for it
	Files   string // of all files that it sees
}

// Labels are for one more step, until release is called.
func (d *Domain) Labels() (l Labels, release func(), err error) {
	switch {
	case d == nil:
		return l, func() {}, nil
	case !d.categories:
		return Labels{d.process, d.files}, func() {}, nil
	}
	l.Process, l.Files, err = label.InitLabels(nil)
	return l, func() { selinux.ReleaseLabel(l.Process) }, err
}

// hasLabels says whether each file in dir can have a label: the kernel tells that among the options of a mount.
func hasLabels(dir string) (bool, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil || len(mounts) == 0 {
		return false, err
	}
	// The longest is the one that dir is on; of those at the same place the last is on top.
	top := mounts[0]
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(top.Mountpoint) {
			top = m
		}
	}
	return slices.Contains(strings.Split(top.VFSOptions, ","), "seclabel"), nil
}

// typeOf is the third part of a label (user:role:type:range).
func typeOf(l string) string { return strings.SplitN(l+":::", ":", 4)[2] }

// shared is a label without categories.
func shared(l string) string {
	if c, err := selinux.NewContext(l); err == nil && c["level"] != "" {
		c["level"] = "s0"
		return c.Get()
	}
	return l
}
