package build

import (
	"fmt"
	"slices"
	"strings"
)

// Confine says what security modules take steps for, if not for containers. The zero value
// has them confined as such, where that can be had.
type Confine struct {
	OwnLabel   bool // steps keep the SELinux label of this process
	OwnProfile bool // ... and its AppArmor profile
}

// Isolation is by what means the steps of a build are kept apart from the machine, and
// so also how file systems are put together for them.
type Isolation string

const (
	// IsolationAuto is the first of the others that works here; so is "".
	IsolationAuto Isolation = "auto"
	// IsolationNamespaces runs steps in namespaces of their own, as containers are.
	IsolationNamespaces Isolation = "namespaces"
	// IsolationChroot runs them by chroot alone, without one mount: root in a container
	// that forbids namespaces and mounts can do that.
	IsolationChroot Isolation = "chroot"
	// IsolationNone runs no steps: Dockerfiles without RUN can be built by anybody.
	IsolationNone Isolation = "none"
)

// ParseIsolation reads a kind of isolation; "" and docker's "default" are IsolationAuto.
func ParseIsolation(text string) (Isolation, error) {
	known := []Isolation{IsolationAuto, IsolationNamespaces, IsolationChroot, IsolationNone}
	switch i := Isolation(strings.ToLower(text)); {
	case i == "", i == "default":
		return IsolationAuto, nil
	case slices.Contains(known, i):
		return i, nil
	}
	return "", fmt.Errorf("invalid isolation %q: want auto, namespaces, chroot or none", text)
}
