package step

import "golang.org/x/sys/unix"

// OpenPeer opens the slave side of a terminal.
func OpenPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
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
