package executor

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// ProcMountable says whether this process may give its steps a procfs of their own. Within a user namespace the kernel
// refuses that while an outer container hides parts of /proc (as all do by default); HostPID is for that case.
// It is a look at the mount table, and only where that leaves a doubt a trial with a child process.
func ProcMountable() (bool, error) {
	if !userns.RunningInUserNS() {
		return true, nil
	}
	covered, err := procCovered()
	if err != nil || !covered {
		return err == nil, err
	}
	e := &stepExecutor{self: step.OpenSelf}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer null.Close()
	c, err := e.spawn(&plan{CloneFlags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}, []*os.File{null, null, null})
	if err != nil {
		return false, err
	}
	defer c.Control.Close()
	err = c.Handshake(&plan{Probe: true})
	if _, werr := c.Proc.Wait(); werr != nil {
		return false, werr
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// procCovered says whether anything is mounted below /proc, other than on folders that exist to be mounted on: those
// hide nothing.
func procCovered() (bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if fields := strings.Fields(line); len(fields) > 4 && covers(fields[4]) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// covers says whether a mount there hides a part of /proc. The one for binfmt_misc lies on a folder that is always
// empty, which the kernel does not count as hidden.
func covers(mountPoint string) bool {
	return strings.HasPrefix(mountPoint, "/proc/") && mountPoint != "/proc/sys/fs/binfmt_misc"
}
