package step

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// OpenSelf returns a handle to our own binary from which children are started.
//
// An image can make the step's program a link to /proc/self/exe; execve then runs our binary inside the step, and a
// process beside it may reopen that file for writing (CVE-2019-5736). The handle is therefore a read-only clone of the
// binary's mount, attached nowhere: whatever is reached through it refuses writes, and nobody in a step could remount
// it. Where cloning is impossible (the file was replaced since we started) a sealed copy in memory does the same.
func OpenSelf() (*os.File, error) {
	if f, err := cloneSelf(); err == nil {
		return f, nil
	}
	f, err := copySelf()
	if err != nil {
		return nil, Setup(err, "open our own binary")
	}
	return f, nil
}

func cloneSelf() (*os.File, error) {
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	var found, running unix.Stat_t
	err = errors.Join(unix.Fstat(fd, &found), unix.Stat("/proc/self/exe", &running))
	if err == nil && (found.Dev != running.Dev || found.Ino != running.Ino) {
		err = fmt.Errorf("%q is another file by now", name)
	}
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func copySelf() (_ *os.File, err error) {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("wherry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every memfd may be executed
		fd, err = unix.MemfdCreate("wherry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "wherry")
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if _, err := io.Copy(f, src); err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	return f, err
}
