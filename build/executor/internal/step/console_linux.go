package step

import "golang.org/x/sys/unix"

// OpenSlave opens the slave side of a new terminal, for a user. It goes by descriptor: the slave's path could lead
// elsewhere by the time it is opened.
func OpenSlave(master, uid int) (int, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	if err := unix.Fchown(int(fd), uid, -1); err != nil {
		Closing(int(fd))
		return -1, err
	}
	return int(fd), nil
}

// TakeTerminal makes slave the three streams and the controlling terminal of this process, which leads a session, and
// hands master to the parent.
func TakeTerminal(master, slave int) error {
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return err
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return err
	}
	return SendFile(TagConsole, master)
}
