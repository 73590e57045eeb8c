package executor

import (
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// enterNetwork joins the network namespace that a provider has made, or brings the loopback of a new one up.
func enterNetwork(p *plan) error {
	if p.NetNS != "" {
		fd, err := unix.Open(p.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return step.Setup(err, "open network namespace")
		}
		defer step.Closing(fd)
		return step.Setup(unix.Setns(fd, unix.CLONE_NEWNET), "join network namespace")
	}
	if p.Loopback {
		return step.Setup(loopbackUp(), "bring loopback up")
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
