package executor

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// Where only one id exists, apt gives up: it changes to the user _apt for downloads and then asks the kernel whether it
// has. Its own setting turns that off. A step of an image with apt sees one more file, read-only, and leaves nothing
// of it; everything else that drops privileges without looking back is content with the answers of the seccomp filter.
const (
	aptFolder  = "/etc/apt/apt.conf.d"
	aptFile    = aptFolder + "/99wherry-one-id"
	aptSetting = "APT::Sandbox::User \"root\";\n"
)

// aptSource is where the file of all steps lies.
func aptSource(root string) string { return filepath.Join(root, "apt.conf") }

// writeAptSetting makes that file.
func writeAptSetting(root string) error {
	return os.WriteFile(aptSource(root), []byte(aptSetting), 0o644)
}

// aptMount says what to mount for apt; ok is false if the image has none, or the step mounts something there itself.
func (e *stepExecutor) aptMount(rootfs string, mounts []executor.Mount) (m mountPlan, ok bool, err error) {
	if !e.opts.SingleID {
		return m, false, nil
	}
	for _, other := range mounts {
		if rel, err := filepath.Rel(path.Clean("/"+other.Dest), aptFile); err == nil && !strings.HasPrefix(rel, "..") {
			return m, false, nil
		}
	}
	root, err := step.OpenRootDir(rootfs)
	if err != nil {
		return m, false, step.Setup(err, "open root file system")
	}
	defer step.Closing(root.FD)
	fd, err := root.Open(aptFolder, unix.O_DIRECTORY)
	if err != nil {
		return m, false, nil // no such folder: no apt
	}
	step.Closing(fd)
	return mountPlan{Source: aptSource(e.opts.Root), Target: aptFile, Attrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}, true, nil
}
