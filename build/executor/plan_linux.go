package executor

import (
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/selinux"
	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// plan is all that the child needs to know, as plain data: it crosses a socket in gob, which unlike JSON keeps bytes
// that are no UTF-8. What can be decided before the namespaces exist is decided in the parent.
type plan struct {
	Rootfs       string
	RootReadonly bool
	Devices      bool // device nodes work on any mount, as --security=insecure has it
	Mounts       []mountPlan
	Nodes        []nodePlan
	Masked       []string
	Readonly     []string

	AppArmor string // the profile that confines the step; "" for none of its own
	SELinux  selinux.Labels
	Hostname string
	Loopback bool   // bring lo up: the network namespace is new
	NetNS    string // join this network namespace; "" for none

	step.Process

	Owners   []unix.SockFilter // sends calls about owners to the engine; empty: it does not answer them
	NoOwners []unix.SockFilter // lets them succeed where they can't be sent

	// CloneFlags are the namespaces to make. A supervisor makes them for its child; else the engine already has.
	CloneFlags uintptr
	// CgroupNS makes a cgroup namespace, once the process is in the step's group: that is what it shows as the root.
	CgroupNS  bool
	Supervise bool
	// Formats are lines for binfmt_misc. If there are any, CloneFlags make a user namespace that knows these alone.
	Formats []string
	// SysFS says that a mount of sysfs follows the control socket, for a user namespace that may make none.
	SysFS bool
	// Join is the pid of a step's first process whose namespaces are entered instead of making new ones; 0: none.
	// JoinFlags are those of them that are the step's own: the others may belong to a user namespace above ours.
	Join      int
	JoinFlags uintptr
	// Probe only tries to mount a new procfs, unless it is SharedProc, and to register the formats.
	Probe, SharedProc bool
}

// mountPlan is one mount, in the order of the OCI spec.
type mountPlan struct {
	Source string
	Target string // inside the rootfs
	Type   string // "" for a bind mount
	Flags  uintptr
	Attrs  uint64 // of a bind mount: what mount_setattr sets
	Rec    bool
	Data   string
	Label  string // for SELinux, of the mount's root alone; "" for what it has by itself
}

// nodePlan is a device node: the host's own is bound over an empty file.
type nodePlan struct {
	Path         string
	Block        bool
	Major, Minor uint32
	Optional     bool // left out where the host has none
}
