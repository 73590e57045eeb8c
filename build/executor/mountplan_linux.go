package executor

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/selinux"
)

// mountOption is what a word among a mount's options means: as a flag of mount(2), and as an attribute that
// mount_setattr(2) sets on a bind mount. Words that are not listed go to the file system.
type mountOption struct {
	flag  uintptr
	attr  uint64
	clear bool
}

func mountOptions() map[string]mountOption {
	return map[string]mountOption{
		"ro":          {flag: unix.MS_RDONLY, attr: unix.MOUNT_ATTR_RDONLY},
		"rro":         {flag: unix.MS_RDONLY, attr: unix.MOUNT_ATTR_RDONLY},
		"rw":          {flag: unix.MS_RDONLY, attr: unix.MOUNT_ATTR_RDONLY, clear: true},
		"nosuid":      {flag: unix.MS_NOSUID, attr: unix.MOUNT_ATTR_NOSUID},
		"suid":        {flag: unix.MS_NOSUID, attr: unix.MOUNT_ATTR_NOSUID, clear: true},
		"nodev":       {flag: unix.MS_NODEV, attr: unix.MOUNT_ATTR_NODEV},
		"dev":         {flag: unix.MS_NODEV, attr: unix.MOUNT_ATTR_NODEV, clear: true},
		"noexec":      {flag: unix.MS_NOEXEC, attr: unix.MOUNT_ATTR_NOEXEC},
		"exec":        {flag: unix.MS_NOEXEC, attr: unix.MOUNT_ATTR_NOEXEC, clear: true},
		"sync":        {flag: unix.MS_SYNCHRONOUS},
		"async":       {flag: unix.MS_SYNCHRONOUS, clear: true},
		"dirsync":     {flag: unix.MS_DIRSYNC},
		"mand":        {flag: unix.MS_MANDLOCK},
		"noatime":     {flag: unix.MS_NOATIME},
		"nodiratime":  {flag: unix.MS_NODIRATIME},
		"relatime":    {flag: unix.MS_RELATIME},
		"strictatime": {flag: unix.MS_STRICTATIME},
		// A clone of a mount keeps its times' rule, and nothing propagates out of a step: these are always so.
		"private": {}, "rprivate": {}, "slave": {}, "rslave": {}, "defaults": {}, "remount": {},
	}
}

// newMountPlan translates one mount of the spec. Unless devices is set the mount is nodev: a step of real root may
// mknod any device, and the nodes that it needs are bound one by one.
func newMountPlan(m specs.Mount, devices, single bool) mountPlan {
	p := mountPlan{Source: m.Source, Target: m.Destination, Type: m.Type}
	if m.Type == "bind" || m.Type == "rbind" {
		p.Type, p.Rec = "", m.Type == "rbind"
	}
	known, data := mountOptions(), []string(nil)
	for _, o := range m.Options {
		switch opt, ok := known[o]; {
		case o == "bind" || o == "rbind":
			p.Type, p.Rec = "", p.Rec || o == "rbind"
		case ok && opt.clear:
			p.Flags, p.Attrs = p.Flags&^opt.flag, p.Attrs&^opt.attr
		case ok:
			p.Flags, p.Attrs = p.Flags|opt.flag, p.Attrs|opt.attr
		case single && m.Type == "devpts" && strings.HasPrefix(o, "gid="):
			// No group but 0 exists; devpts would refuse the whole mount.
		default:
			data = append(data, o)
		}
	}
	p.Data = strings.Join(data, ",")
	if !devices && m.Type != "devpts" {
		p.Flags, p.Attrs = p.Flags|unix.MS_NODEV, p.Attrs|unix.MOUNT_ATTR_NODEV
	}
	return p
}

// takeLabel has the files of a mount labelled for SELinux, where its source has not yet seen to that.
func (p *mountPlan) takeLabel(l selinux.Labels) {
	if p.Type == "mqueue" {
		p.Label = l.Files
	}
	p.Data = l.MountData(p.Type, p.Data)
}
