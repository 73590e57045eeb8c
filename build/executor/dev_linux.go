package executor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// populateDev fills the fresh /dev: the host's nodes bound one by one (a user namespace may not make nodes, and binds
// work on a nodev mount), and the usual links.
func populateDev(root step.RootDir, nodes []nodePlan) error {
	for _, n := range nodes {
		tree, err := cloneDevice(n)
		if n.Optional && (missing(err) || errors.Is(err, unix.ENXIO)) {
			continue
		}
		if err == nil {
			err = attachAt(root, tree, n.Path)
			step.Closing(tree)
		}
		if err != nil {
			return step.Setup(err, "bind device %s", n.Path)
		}
	}
	dev, err := root.Open("/dev", unix.O_DIRECTORY)
	if err != nil {
		return step.Setup(err, "open /dev")
	}
	defer step.Closing(dev)
	for _, l := range deviceLinks() {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil && !errors.Is(err, unix.EEXIST) {
			return step.Setup(err, "link /dev/%s", l[0])
		}
	}
	return nil
}

// deviceLinks are the names in /dev that lead elsewhere, as runc makes them.
func deviceLinks() [][2]string {
	links := [][2]string{
		{"fd", "/proc/self/fd"},
		{"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"},
		{"ptmx", "pts/ptmx"},
	}
	if unix.Access("/proc/kcore", unix.F_OK) == nil { // not every kernel has it
		links = append(links, [2]string{"core", "/proc/kcore"})
	}
	return links
}

// cloneDevice returns a detached mount of the host's node, after making sure that it is the device it should be.
func cloneDevice(n nodePlan) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, n.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return -1, errors.Join(err, unix.Close(tree))
	}
	kind := uint32(unix.S_IFCHR)
	if n.Block {
		kind = unix.S_IFBLK
	}
	if st.Mode&unix.S_IFMT != kind || unix.Major(st.Rdev) != n.Major || unix.Minor(st.Rdev) != n.Minor {
		return -1, errors.Join(fmt.Errorf("the host's %s is not device %d:%d: %w", n.Path, n.Major, n.Minor, unix.ENXIO), unix.Close(tree))
	}
	return tree, nil
}
