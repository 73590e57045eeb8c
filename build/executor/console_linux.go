package executor

import (
	"golang.org/x/sys/unix"
)

// openConsole makes a terminal in the step's own devpts, so that its name exists there, makes it this process's
// controlling one and its three streams, and hands the master side to the parent.
func openConsole(root rootDir, p *plan) error {
	master, err := root.openHow("/dev/pts/ptmx", unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return err
	}
	defer closing(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	// By descriptor: the slave's path could lead elsewhere by the time it is opened.
	slave, err := openPeer(master)
	if err != nil {
		return err
	}
	defer closing(slave)
	if err := unix.Fchown(slave, int(p.UID), -1); err != nil {
		return err
	}
	if p.Join == 0 {
		tree, err := unix.OpenTree(unix.AT_FDCWD, fdPath(slave), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		defer closing(tree)
		if err := attachAt(root, tree, "/dev/console"); err != nil {
			return err
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return err
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return err
	}
	return unix.Sendmsg(controlFD, []byte{0}, unix.UnixRights(master), nil, 0)
}

// openPeer opens the slave side of a terminal.
func openPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
