package executor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// AppArmorProfile is the profile that AppArmor confines steps of real root by: that of docker's containers, or else that of
// podman's, if the kernel has it loaded. It is "" where there is none, and where this process is itself confined: then steps
// are as it is, since a profile may only be left for another by a rule of its own.
func AppArmorProfile() string { return appArmorProfile("/") }

// appArmorProfile reads what the kernel tells below root.
func appArmorProfile(root string) string {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "" // no AppArmor, or not for us to see
		}
		return strings.TrimRight(string(text), "\n\x00")
	}
	if read("sys/module/apparmor/parameters/enabled") != "Y" {
		return ""
	}
	if own := read("proc/self/attr/apparmor/current"); own != "unconfined" && (own != "" || read("proc/self/attr/current") != "unconfined") {
		return ""
	}
	podmans := ""
	for line := range strings.Lines(read("sys/kernel/security/apparmor/profiles")) {
		name, _, _ := strings.Cut(line, " (")
		switch {
		case name == "docker-default":
			return name
		case strings.HasPrefix(name, "containers-default-"):
			podmans = name
		}
	}
	return podmans
}

// confineByAppArmor has the next execve of this thread, which is the one that starts the step, put it under a profile; none
// is "". It comes before all else: this /proc is the outer one, in which an image can't have put anything, and a file
// of attributes can only be written with the rights with which it was opened.
func confineByAppArmor(profile string) error {
	if profile == "" {
		return nil
	}
	fd, err := openAttribute("/proc/thread-self/attr/apparmor/exec")
	if errors.Is(err, fs.ErrNotExist) { // before Linux 4.20 or so there is one file for all security modules
		fd, err = openAttribute("/proc/thread-self/attr/exec")
	}
	if err == nil {
		_, err = unix.Write(fd, []byte("exec "+profile))
		step.Closing(fd)
	}
	return step.Setup(err, "take the AppArmor profile %q", profile)
}

func openAttribute(name string) (int, error) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Statfs_t
	if err = unix.Fstatfs(fd, &st); err == nil && st.Type != unix.PROC_SUPER_MAGIC {
		err = unix.EINVAL
	}
	if err != nil {
		step.Closing(fd)
		return -1, err
	}
	return fd, nil
}
