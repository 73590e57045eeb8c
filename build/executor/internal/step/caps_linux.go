package step

import (
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CapSets are capability sets as bit masks.
type CapSets struct{ Bounding, Effective, Permitted, Inheritable, Ambient uint64 }

// NewCapSets translates the names of an OCI spec. Names that this kernel does not know are left out, as runc does.
func NewCapSets(c *specs.LinuxCapabilities) CapSets {
	if c == nil {
		return CapSets{}
	}
	bits := map[string]uint64{}
	if known, err := capability.ListSupported(); err == nil {
		for _, k := range known {
			bits["CAP_"+strings.ToUpper(k.String())] = 1 << uint(k)
		}
	}
	mask := func(names []string) (m uint64) {
		for _, n := range names {
			m |= bits[n]
		}
		return m
	}
	return CapSets{mask(c.Bounding), mask(c.Effective), mask(c.Permitted), mask(c.Inheritable), mask(c.Ambient)}
}

// Within cuts the sets down to what is had: root of an outer container lacks some, and asking for those is refused.
func (c CapSets) Within(had uint64) CapSets {
	return CapSets{c.Bounding & had, c.Effective & had, c.Permitted & had, c.Inheritable & had, c.Ambient & had}
}

func capHeader() *unix.CapUserHeader {
	return &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
}

// Permitted returns this thread's permitted set.
func Permitted() (uint64, error) {
	var d [2]unix.CapUserData
	if err := unix.Capget(capHeader(), &d[0]); err != nil {
		return 0, err
	}
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32, nil
}

// SetCaps sets this thread's three classic sets.
func SetCaps(c CapSets) error {
	var d [2]unix.CapUserData
	for i := range d {
		shift := 32 * i
		d[i] = unix.CapUserData{
			Effective: uint32(c.Effective >> shift), Permitted: uint32(c.Permitted >> shift), Inheritable: uint32(c.Inheritable >> shift),
		}
	}
	return unix.Capset(capHeader(), &d[0])
}

// DropBounding removes everything from the bounding set that is not in keep.
func DropBounding(keep uint64) error {
	for c := uintptr(0); c < 64; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil || has == 0 || keep&(1<<c) != 0 { // an error: this kernel has no such capability
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// RaiseAmbient makes the ambient set; the capabilities must already be permitted and inheritable.
func RaiseAmbient(set uint64) error {
	for c := uintptr(0); c < 64; c++ {
		if set&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return err
		}
	}
	return nil
}
