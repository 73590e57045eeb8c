package chroot

import (
	"slices"
	"strconv"
	"strings"
)

// components splits a path. "." and empty ones are dropped; ".." stays, since what it means depends on links.
func components(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(c string) bool { return c == "" || c == "." })
}

// under splits an absolute path that leads to what the supervisor serves: the name of the tree ("proc" or "dev"), and
// the components below it. A path with ".." on the way there, or with links, is not recognised.
func under(p string) (tree string, rest []string, ok bool) {
	if !strings.HasPrefix(p, "/") {
		return "", nil, false
	}
	all := components(p)
	if len(all) == 0 {
		return "", nil, false
	}
	switch all[0] {
	case "proc":
		return all[0], all[1:], true
	case "dev":
		return all[0], all[1:], len(all) > 1
	}
	return "", nil, false
}

// mayLead is a quick look at a path of which only the text is known: whether it could lead to what is served. A
// relative one only needs to have the name in it.
func mayLead(p string) bool {
	return strings.Contains(p, "proc") || strings.Contains(p, "dev")
}

// wordKind says what a file in /proc is by the place of its name.
type wordKind int

const (
	plain    wordKind = iota // a file or a folder
	fileLink                 // fd/N: leads to what a process has open
	pathLink                 // cwd, root, exe
	nsLink                   // ns/X: can be read, not followed
	refused                  // what a step has no use for
)

// classify says what the file at the components of a process's folder is; parts[0] is the process's number.
func classify(parts []string) wordKind {
	if len(parts) >= 3 && parts[1] == "task" {
		parts = parts[2:]
	}
	switch {
	case len(parts) == 2 && (parts[1] == "cwd" || parts[1] == "root" || parts[1] == "exe"):
		return pathLink
	case len(parts) == 3 && parts[1] == "fd":
		return fileLink
	case len(parts) == 3 && parts[1] == "ns":
		return nsLink
	case len(parts) == 3 && parts[1] == "map_files":
		return refused
	}
	return plain
}

// number reads a process's or descriptor's number as the kernel prints it: no sign, no leading zeros.
func number(s string) (int, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	return int(n), err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

// common are the names in /proc besides processes that a step sees: what tells of the machine, and nothing that could
// change it or that docker hides.
func common() []string {
	return []string{
		"buddyinfo", "cgroups", "cmdline", "config.gz", "consoles", "cpuinfo", "crypto", "devices", "diskstats",
		"execdomains", "filesystems", "loadavg", "locks", "meminfo", "misc", "modules", "pagetypeinfo", "partitions",
		"pressure", "schedstat", "softirqs", "stat", "swaps", "sys", "sysvipc", "uptime", "version", "vmstat", "zoneinfo",
	}
}

// links are those of /proc that lead into the caller's own folder.
func links() []string { return []string{"self", "thread-self", "mounts", "net"} }
