package executor

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/selinux"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// Domain is what SELinux takes steps for, if not for what this process is.
type Domain = selinux.Domain

// FindDomain asks SELinux's policy for the domain of containers. It is nil where SELinux is not in force, and with a
// *NotLabelledError where steps keep the label of this process. dir, which exists, is where their files will be; userNS
// says that they have no rights but in a user namespace.
func FindDomain(dir string, userNS bool) (*Domain, error) { return selinux.Find(dir, userNS) }

// NotLabelledError says why steps keep the label that SELinux gives to this process.
type NotLabelledError = selinux.NotLabelledError

// confine has the next execve of this thread, which is the one that starts the step, put it under its AppArmor profile or
// SELinux label. It comes before all else: this /proc is the outer one, in which an image can't have put anything, and a
// file of attributes can only be written with the rights with which it was opened.
func confine(p *plan) error {
	if p.AppArmor != "" {
		err := setAttribute("apparmor/exec", "exec "+p.AppArmor)
		if errors.Is(err, fs.ErrNotExist) { // before Linux 4.20 or so there is one file for all security modules
			err = setAttribute("exec", "exec "+p.AppArmor)
		}
		if err != nil {
			return step.Setup(err, "take the AppArmor profile %q", p.AppArmor)
		}
	}
	if p.SELinux.Process != "" {
		for _, name := range []string{"exec", "keycreate"} { // the latter for the keyring that is made before
			if err := setAttribute(name, p.SELinux.Process); err != nil {
				return step.Setup(err, "take the SELinux label %q (%s)", p.SELinux.Process, name)
			}
		}
	}
	return nil
}

// setAttribute writes one of this thread's attributes for security modules.
func setAttribute(name, value string) error {
	fd, err := unix.Open("/proc/thread-self/attr/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	var st unix.Statfs_t
	if err = unix.Fstatfs(fd, &st); err == nil && st.Type != unix.PROC_SUPER_MAGIC {
		err = unix.EINVAL
	}
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
	}
	return err
}
