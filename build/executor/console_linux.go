package executor

import (
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// openConsole makes a terminal in the step's own devpts, so that its name exists there, makes it this process's
// controlling one and its three streams, and hands the master side to the parent.
func openConsole(root step.RootDir, p *plan) error {
	master, err := root.OpenHow("/dev/pts/ptmx", unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return err
	}
	defer step.Closing(master)
	slave, err := step.OpenSlave(master, int(p.UID))
	if err != nil {
		return err
	}
	defer step.Closing(slave)
	if p.Join == 0 {
		tree, err := unix.OpenTree(unix.AT_FDCWD, step.FDPath(slave), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		defer step.Closing(tree)
		if err := attachAt(root, tree, "/dev/console"); err != nil {
			return err
		}
	}
	return step.TakeTerminal(master, slave)
}
