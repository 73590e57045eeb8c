package chroot

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// killStragglers kills processes whose root is this. There are none, but for those of a step whose supervisor was
// killed, by an administrator or for want of memory.
func killStragglers(root step.RootDir) {
	rootfs, err := os.Readlink(step.FDPath(root.FD))
	if err != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread changes its identity
		for range 100 {
			if !killRooted(rootfs) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	<-ended
}

// killRooted kills those that are there now, and says whether there were any.
func killRooted(rootfs string) (found bool) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, d := range list {
		pid, ok := number(d.Name())
		if !ok || pid == os.Getpid() {
			continue
		}
		link := filepath.Join("/proc", strconv.Itoa(pid), "root")
		var st unix.Stat_t
		mine := false
		if err := unix.Lstat(link, &st); err != nil {
			continue
		}
		_ = asUser(st.Uid, st.Gid, func() error {
			if root, err := os.Readlink(link); err != nil || root != rootfs {
				return err
			}
			mine = true
			return nil
		})
		if mine {
			found = true
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone by now
		}
	}
	return found
}
