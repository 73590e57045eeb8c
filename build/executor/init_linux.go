package executor

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// Init is the child side. The program calls it first thing when it runs under the name InitArg0; it never returns.
//
// The process is the first one of the step's pid namespace, still with all privileges and our own binary as its image.
// Everything that counts per thread (namespaces, ids, capabilities, seccomp) is done with raw system calls on this one
// locked thread, which then becomes the step by execve; the runtime's other threads end there.
func Init() {
	var p plan
	step.Enter(&p)
	switch {
	case p.Probe:
		step.Fail(probe(&p))
	case p.Supervise:
		os.Exit(supervise(&p))
	case p.Join != 0:
		step.Fail(joinStep(&p))
	default:
		step.Fail(becomeStep(&p))
	}
}

// probe tries what plan.Probe says.
func probe(p *plan) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return step.Setup(err, "make mounts private")
	}
	if !p.SharedProc {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return step.Setup(err, mountProc)
		}
	}
	return registerFormats(p.Formats)
}

// becomeStep sets the new namespaces up from inside and executes the step. It returns only on failure.
func becomeStep(p *plan) error {
	if err := confine(p); err != nil {
		return err
	}
	if p.CgroupNS {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return step.Setup(err, "make cgroup namespace")
		}
	}
	if err := enterNetwork(p); err != nil {
		return err
	}
	root, err := mountRootfs(p)
	if err != nil {
		return err
	}
	if err := registerFormats(p.Formats); err != nil {
		return err
	}
	if err := mountAll(root, p); err != nil {
		return err
	}
	if p.Terminal {
		if err := openConsole(root, p); err != nil {
			return step.Setup(err, "open terminal")
		}
	}
	// runc does so, too: a folder for the command's cwd appears below a mount, where the parent could not make it.
	if err := makeCwd(root, p); err != nil {
		return err
	}
	if err := restrict(root, p); err != nil {
		return err
	}
	if p.Hostname != "" {
		// Podman's default profile lets user namespaces be made, and forbids this in them: the name stays the outer one.
		if err := unix.Sethostname([]byte(p.Hostname)); err != nil && !errors.Is(err, unix.EPERM) {
			return step.Setup(err, "set host name")
		}
	}
	if err := pivot(root); err != nil {
		return err
	}
	return becomeProgram(p)
}

// becomeProgram executes the step's program. It returns only on failure.
func becomeProgram(p *plan) error {
	return step.Become(&p.Process, func() error { return handOwnersOver(p) })
}

func makeCwd(root step.RootDir, p *plan) error {
	fd, err := root.MkdirAll(p.Cwd, 0, 0)
	if err == nil {
		step.Closing(fd)
		return nil
	}
	if errors.Is(err, unix.EROFS) {
		return nil // below a read-only mount: chdir will tell
	}
	return step.Setup(err, "make working directory %q", p.Cwd)
}

// pivot makes the root file system "/" and lets go of the outer one, of which no descriptor is left after execve.
func pivot(root step.RootDir) error {
	if err := unix.Fchdir(root.FD); err != nil {
		return step.Setup(err, "enter root file system")
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return step.Setup(err, "pivot to root file system")
	}
	// The old root lies on top now, and is "." as well.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return step.Setup(err, "let go of the outer root")
	}
	return step.Setup(unix.Chdir("/"), "enter root file system")
}
