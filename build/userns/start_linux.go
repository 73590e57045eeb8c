package userns

import (
	"context"
	"errors"
	"fmt"
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
	// goAheadFD is the pipe on which Init waits.
	goAheadFD = 3
	// startFailed is the exit code of a child that never became the program.
	startFailed = 125
)

// attempt is one way into the namespaces.
type attempt struct {
	start     func() (*os.Process, error)
	onFailure string // what its failure means for an attempt after it
}

// attempts lists the ways for this caller, best first.
func attempts(o Options) []attempt {
	single := attempt{start: func() (*os.Process, error) {
		return startMapped(oneID(os.Geteuid()), oneID(os.Getegid()))
	}}
	switch {
	case o.SingleID:
		return []attempt{single}
	case os.Geteuid() == 0: // of an outer container: it may map all that it has by itself
		same := attempt{onFailure: "only one id is mapped", start: func() (*os.Process, error) {
			return startMapped(sameIDs("/proc/self/uid_map"), sameIDs("/proc/self/gid_map"))
		}}
		return []attempt{same, single}
	}
	return []attempt{{start: startRange, onFailure: "only one id is mapped"}, single}
}

// privileged says whether this process is root and has CAP_SYS_ADMIN.
func privileged() bool {
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if os.Geteuid() != 0 || unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// startMapped starts the program with maps that this process may write by itself.
func startMapped(uids, gids []syscall.SysProcIDMap) (*os.Process, error) {
	return startProgram(&syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: uids, GidMappings: gids,
		GidMappingsEnableSetgroups: len(gids) > 1 || gids[0].Size > 1,
	})
}

func startProgram(sys *syscall.SysProcAttr) (*os.Process, error) {
	sys.Pdeathsig = syscall.SIGKILL
	args := append([]string{insidePrefix + os.Args[0]}, os.Args[1:]...)
	p, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{Files: streams(), Sys: sys})
	if err != nil {
		return nil, errnoOf(err)
	}
	return p, nil
}

// streams are handed on as they are: what is started is this program once more.
func streams() []*os.File {
	return []*os.File{os.Stdin, os.Stdout, os.Stderr} //nolint:forbidigo // nothing is written to them here
}

func oneID(id int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
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
func startRange() (*os.Process, error) {
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
			return nil, fmt.Errorf("%s is not installed (package uidmap or shadow-utils)", helper)
		}
	}
	p, goAhead, err := startWaiting()
	if err != nil {
		return nil, err
	}
	err = errors.Join(runHelper("newuidmap", p.Pid, uids), runHelper("newgidmap", p.Pid, gids))
	if err == nil {
		_, err = goAhead.Write([]byte{1})
	}
	if err = errors.Join(err, goAhead.Close()); err != nil {
		_, werr := p.Wait() // the end of the pipe makes it exit
		return nil, errors.Join(err, werr)
	}
	return p, nil
}

// startWaiting starts Init; it goes on at the first byte in the returned file, and exits at its end.
func startWaiting() (*os.Process, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p, err := os.StartProcess("/proc/self/exe", append([]string{InitArg0}, os.Args...), &os.ProcAttr{
		Files: append(streams(), r),
		Sys:   &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL},
	})
	if err = errors.Join(errnoOf(err), r.Close()); err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return p, w, nil
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
	if err != nil {
		return nil, err
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("%s has no line for user %s", file, names[len(names)-1])
	}
	args, next := []string{"0", strconv.Itoa(own), "1"}, int64(1)
	for _, r := range ranges {
		args = append(args, strconv.FormatInt(next, 10), strconv.FormatInt(r.SubID, 10), strconv.FormatInt(r.Count, 10))
		next += r.Count
	}
	return args, nil
}

func runHelper(name string, pid int, args []string) error {
	out, err := exec.CommandContext(context.Background(), name, append([]string{strconv.Itoa(pid)}, args...)...).CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return fmt.Errorf("%s", text) // it begins with the helper's name
	}
	return fmt.Errorf("%s: %w", name, err)
}
