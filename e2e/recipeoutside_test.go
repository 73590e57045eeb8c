package e2e

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// outside is a container of a recipe's, as contained makes them, with what a product asks for.
type outside struct {
	*container
	args, env []string
	cwd       string
	mounts    map[string]string // where folders of the machine are in it
	stdin     []byte
}

// newOutside is a container as docker's are by default, of a user, with the files of an image that "-o type=local" has
// written, fresh for each.
func (r *recipe) newOutside(ctx context.Context, image string, who account, caps []string) (*outside, error) {
	spec, err := dockerSpec(caps, who)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(r.dir, "root")
	if err := removeTree(ctx, root); err != nil {
		return nil, err
	}
	if err := errors.Join(command(ctx, "cp", "-a", filepath.Join(r.recipes.dir, image), root), os.Chmod(root, 0o755)); err != nil {
		return nil, err
	}
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if err := copyFile(file, filepath.Join(root, file), 0o644); err != nil {
			return nil, err
		}
	}
	return &outside{container: &container{spec: spec, root: root, who: who}, mounts: map[string]string{}}, nil
}

// run has the program of the container run, and returns all it writes.
func (o *outside) run(ctx context.Context, r *recipe) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	for path, source := range o.mounts {
		o.spec.Mounts = append(o.spec.Mounts, specs.Mount{Destination: path, Type: "bind", Source: source, Options: []string{"rbind", "rprivate", "rw"}})
	}
	cmd := exec.CommandContext(ctx, o.args[0], o.args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin = o.env, o.cwd, bytes.NewReader(o.stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	remove, err := o.contain(ctx, r.suite, r.dir, nil, cmd)
	if err != nil {
		return "", err
	}
	defer func() { _ = remove() }() // it has ended by itself, most of the time
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// recipeIDs is the first id of those that a container's user namespace has on the machine, and how many there are.
const recipeFirstID, recipeIDCount = 1_900_100_000, 65536

// inUserNamespace has the container have one, and its files be the root's of that, as the mounts of a node's runtime
// make them be.
func (o *outside) inUserNamespace() error {
	o.spec.Linux.Namespaces = append(o.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: recipeFirstID, Size: recipeIDCount}}
	o.spec.Linux.UIDMappings, o.spec.Linux.GIDMappings = ids, ids
	for i, m := range o.spec.Mounts {
		if m.Type == "sysfs" { // it belongs to the machine's network, which the registry of the test is in
			o.spec.Mounts[i] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro", "nosuid", "noexec", "nodev"}}
		}
	}
	err := shiftOwners(o.root)
	for _, source := range o.mounts {
		err = errors.Join(err, shiftOwners(source))
	}
	return err
}

// shiftOwners gives the files of a tree to who has their owners' ids in a container's user namespace.
func shiftOwners(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Uid >= recipeFirstID { // it has been there before
			return nil
		}
		if err := os.Lchown(path, recipeFirstID+int(st.Uid), recipeFirstID+int(st.Gid)); err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chmod(path, info.Mode()) // setuid is gone with the owner
	})
}
