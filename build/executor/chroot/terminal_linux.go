package chroot

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// The outer devpts is everybody's in the container, and a terminal's number is used again as soon as its master side
// is closed. A step gets at those whose master side one of its processes has open, and at its own console, whose
// master the engine holds for as long as the step runs.

// openTerm opens a terminal of the step's own, a new one, or a device that could not be made.
func (c *caller) openTerm(r request, n node) answer {
	name := n.path
	if name == "tty" {
		var errno unix.Errno
		if name, errno = c.s.terminalOf(c); errno != 0 {
			return failed(errno)
		}
	}
	// As root: whose the terminals of /dev/pts are depends on who was asked for them.
	fd, err := unix.Openat(c.s.dev, name, r.flags&^(unix.O_CREAT|unix.O_EXCL)|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return failed(errnoOf(err))
	}
	if number, ok := strings.CutPrefix(name, "pts/"); ok && !c.s.ownTerminal(number) { // not any more
		step.Closing(fd)
		return failed(unix.ENOENT)
	}
	return given(fd, r)
}

// adopt notes that the terminal of which master is the one side is the step's console.
func (s *server) adopt(master int) error {
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		s.console.Store(int64(n) + 1)
	}
	return err
}

// ownTerminal says whether the terminal with this number is the step's.
func (s *server) ownTerminal(n string) bool {
	if console := s.console.Load(); console > 0 && n == strconv.FormatInt(console-1, 10) {
		return true
	}
	fd, err := s.open("", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	names, err := list(fd)
	step.Closing(fd)
	if err != nil {
		return false
	}
	for name := range names {
		if pid, ok := number(name); ok && s.own(pid) && s.holdsMaster(name, n) {
			return true
		}
	}
	return false
}

// holdsMaster says whether a process has the master side of a terminal open.
func (s *server) holdsMaster(pid, n string) (found bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(s.proc, pid, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false
	}
	err := asUser(st.Uid, st.Gid, func() error {
		fd, err := s.open(pid+"/fd", unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer step.Closing(fd)
		names, err := list(fd)
		for name := range names {
			buf := make([]byte, 64)
			size, err := unix.Readlinkat(fd, name, buf)
			if err != nil || !strings.HasSuffix(string(buf[:size]), "/ptmx") {
				continue
			}
			info, err := s.read(pid + "/fdinfo/" + name)
			found = found || err == nil && bytes.Contains(info, []byte("tty-index:\t"+n+"\n"))
		}
		return err
	})
	return found && err == nil
}

// terminalOf is the name, below /dev, of the caller's controlling terminal, if that is the step's.
func (s *server) terminalOf(c *caller) (string, unix.Errno) {
	data, err := s.read(strconv.Itoa(c.tid) + "/stat")
	if err != nil {
		return "", errnoOf(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 5 {
		return "", unix.ENXIO
	}
	device, _ := strconv.Atoi(fields[4]) // 0 if it is none
	n := strconv.Itoa(int(unix.Minor(uint64(device))))
	const slaves = 136 // the first of the majors of /dev/pts
	if major := unix.Major(uint64(device)); major < slaves || major >= slaves+8 || !s.ownTerminal(n) {
		return "", unix.ENXIO
	}
	return "pts/" + n, 0
}
