package userns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	subid "github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

const (
	// verdictFD is the pipe on which the program says whether it may mount.
	verdictFD = 3
	// goAheadFD is the pipe on which Init waits.
	goAheadFD = 4
	// startFailed is the exit code of a child that never became the program.
	startFailed = 125
)

// child is the program, started again.
type child struct {
	*os.Process
	verdict *os.File
}

// refusal is why the child may not mount, as it says itself; nil if it may, or if it has ended before it came to that.
func (c *child) refusal() error {
	b := make([]byte, 1)
	n, _ := c.verdict.Read(b) // at its end the child has ended
	_ = c.verdict.Close()
	if n == 0 || b[0] == 0 {
		return nil
	}
	return fmt.Errorf("make mounts private: %w", unix.Errno(b[0]))
}

// mappings lists what this caller may have, best first.
func mappings(o Options) []Mapping {
	if o.SingleID {
		return []Mapping{Single}
	}
	return []Mapping{Range, Single}
}

// start starts this program with the arguments, in namespaces with the mapping.
func start(ctx context.Context, m Mapping, args []string) (*child, error) {
	switch {
	case m == None && !privileged():
		return nil, &NotPermittedError{Reason: "this is not root with CAP_SYS_ADMIN", Err: unix.EPERM}
	case m == None:
		return startProgram(args, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS})
	case m == Single:
		return startMapped(args, oneID(os.Geteuid()), oneID(os.Getegid()))
	case os.Geteuid() == 0: // of an outer container: it may map all that it has by itself
		return startMapped(args, sameIDs("/proc/self/uid_map"), sameIDs("/proc/self/gid_map"))
	}
	return startRange(ctx, args)
}

// privileged says whether this process is root and has CAP_SYS_ADMIN.
func privileged() bool { return os.Geteuid() == 0 && mayAdminister() }

// mayAdminister says whether this process has CAP_SYS_ADMIN.
func mayAdminister() bool {
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// startMapped starts the program with maps that this process may write by itself.
func startMapped(args []string, uids, gids []syscall.SysProcIDMap) (*child, error) {
	return startProgram(args, &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: uids, GidMappings: gids,
		GidMappingsEnableSetgroups: len(gids) > 1 || gids[0].Size > 1,
	})
}

func startProgram(args []string, sys *syscall.SysProcAttr) (*child, error) {
	return startChild(append([]string{insidePrefix + args[0]}, args[1:]...), sys)
}

// startChild starts this executable; what else it is to have open follows after its verdict.
func startChild(args []string, sys *syscall.SysProcAttr, more ...*os.File) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	sys.Pdeathsig = syscall.SIGKILL
	p, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{Files: append(append(streams(), w), more...), Sys: sys})
	if err = errors.Join(errnoOf(err), w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &child{Process: p, verdict: r}, nil
}

// streams are handed on as they are: what is started is this program once more.
func streams() []*os.File {
	return []*os.File{os.Stdin, os.Stdout, os.Stderr} //nolint:forbidigo // nothing is written to them here
}

func oneID(id int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
}

// SameIDs are the maps of a user namespace in which every id is what it is in this process's own.
func SameIDs() (uids, gids []syscall.SysProcIDMap) {
	return sameIDs("/proc/self/uid_map"), sameIDs("/proc/self/gid_map")
}

// sameIDs maps every id of this namespace to itself.
func sameIDs(file string) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, m := range idMap(file) {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ID), HostID: int(m.ID), Size: int(m.Count)})
	}
	if len(out) == 0 {
		return oneID(0)
	}
	return out
}

func idMap(file string) []subid.IDMap {
	list, err := subid.ParseIDMapFile(file)
	if err != nil {
		return nil
	}
	return list
}

// mappedIDs counts the ids in a map; 0 if it can't be read.
func mappedIDs(file string) (n int64) {
	for _, m := range idMap(file) {
		n += m.Count
	}
	return n
}

// startRange starts Init in the new namespaces, has newuidmap and newgidmap write its maps, and lets it go on.
func startRange(ctx context.Context, args []string) (*child, error) {
	uids, err := helperArgs("/etc/subuid", os.Geteuid())
	if err != nil {
		return nil, err
	}
	gids, err := helperArgs("/etc/subgid", os.Getegid())
	if err != nil {
		return nil, err
	}
	for _, helper := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(helper); err != nil {
			return nil, &NoRangeError{Reason: helper + " is not installed (package uidmap or shadow-utils)", Hint: "sudo apt-get install uidmap"}
		}
	}
	c, goAhead, err := startWaiting(args)
	if err != nil {
		return nil, err
	}
	err = errors.Join(runHelper(ctx, "newuidmap", c.Pid, uids), runHelper(ctx, "newgidmap", c.Pid, gids))
	if other := otherGroup(); err != nil && other != nil {
		err = other
	}
	if err == nil {
		_, err = goAhead.Write([]byte{1})
	}
	if err = errors.Join(err, goAhead.Close()); err != nil {
		_, werr := c.Wait() // the end of the pipe makes it exit
		return nil, errors.Join(err, werr, c.verdict.Close())
	}
	return c, nil
}

// startWaiting starts Init; it goes on at the first byte in the returned file, and exits at its end.
func startWaiting(args []string) (*child, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	c, err := startChild(append([]string{InitArg0}, args...), &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return c, w, nil
}

// helperArgs are the arguments of newuidmap or newgidmap after the pid: id 0 is the caller, then come all ranges that
// the file gives to the caller, by name or by number, from 1 up. Groups are given to users, not to groups.
func helperArgs(file string, own int) ([]string, error) {
	uid := strconv.Itoa(os.Geteuid())
	names := []string{uid}
	if u, err := user.LookupId(uid); err == nil {
		names = append(names, u.Username)
	}
	ranges, err := subid.ParseSubIDFileFilter(file, func(s subid.SubID) bool { return s.Count > 0 && slices.Contains(names, s.Name) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(ranges) == 0 {
		return nil, noRange(file, names[len(names)-1])
	}
	args, next := []string{"0", strconv.Itoa(own), "1"}, int64(1)
	for _, r := range ranges {
		args = append(args, strconv.FormatInt(next, 10), strconv.FormatInt(r.SubID, 10), strconv.FormatInt(r.Count, 10))
		next += r.Count
	}
	return args, nil
}

// otherGroup says that this process has not its user's own group, for which the helpers refuse it; nil if it has.
func otherGroup() error {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil || u.Gid == strconv.Itoa(os.Getegid()) {
		return nil //nolint:nilerr // a user whom nobody knows has no group of his own
	}
	group := u.Gid
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		group = g.Name
	}
	return &NoRangeError{
		Reason: fmt.Sprintf("newuidmap wants user %s to have the group %s, not %d as after newgrp", u.Username, group, os.Getegid()),
		Hint:   "newgrp " + group,
	}
}

func runHelper(ctx context.Context, name string, pid int, args []string) error {
	out, err := exec.CommandContext(ctx, name, append([]string{strconv.Itoa(pid)}, args...)...).CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return &NoRangeError{Reason: text} // it begins with the helper's name
	}
	return fmt.Errorf("%s: %w", name, err)
}
