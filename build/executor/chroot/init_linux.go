package chroot

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/seccomp"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// tagListener is the byte that comes with the descriptor from which the confinement filter's calls come.
const tagListener = 1

// Init is the side of the children. The program calls it first thing when it runs under the name InitArg0; it never
// returns.
func Init() {
	var p plan
	step.Enter(&p)
	if p.Supervise {
		os.Exit(supervise(&p))
	}
	step.Fail(becomeStep(&p))
}

// becomeStep enters the step's root and becomes its first process. It returns only on failure.
func becomeStep(p *plan) error {
	if p.Terminal {
		if err := openConsole(p); err != nil {
			return step.Setup(err, "open terminal")
		}
	}
	if err := unix.Chdir(p.Rootfs); err != nil {
		return step.Setup(err, "enter root file system")
	}
	if err := unix.Chroot("."); err != nil {
		return step.Setup(err, "change root")
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return step.Setup(err, "open root file system")
	}
	return step.Become(&p.Process, func() error {
		if p.Landlock > 0 {
			if err := landlock(root, p.Landlock); err != nil {
				return step.Setup(err, "confine by Landlock")
			}
		}
		// Sent calls are answered from here on, among them those of this process.
		listener, err := seccomp.Listen(p.Confinement)
		if err != nil {
			return step.Setup(err, "load confinement filter")
		}
		defer step.Closing(listener)
		return step.Setup(step.SendFile(tagListener, listener), "hand confinement over")
	})
}

// openConsole makes a terminal the controlling one of this process and its three streams, and hands its master side
// over.
func openConsole(p *plan) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer step.Closing(master)
	slave, err := step.OpenSlave(master, int(p.UID))
	if err != nil {
		return err
	}
	defer step.Closing(slave)
	return step.TakeTerminal(master, slave)
}
