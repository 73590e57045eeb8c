package chroot

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeKind says by what way a node is served.
type nodeKind int

const (
	realNode  nodeKind = iota // a file or folder of /proc, at path
	magicNode                 // a link of /proc, at path, and here what it leads to
	linkNode                  // a link whose target is known: text; path is it if it is in /proc
	rootNode                  // a path in the step's root, to which a link of /proc has led
	termNode                  // a file of the outer /dev
	tableNode                 // a list of mounts, which is made up
)

// node is what a path below /proc or /dev stands for.
type node struct {
	kind nodeKind
	path string // below the outer /proc or /dev, or absolute in the step's root
	name string // as the caller named it, below /proc
	text string
	pid  int // the process in whose folder it is; 0: in none
}

// maxLinks is how many links of /proc may follow on each other.
const maxLinks = 8

// resolve finds what the components below /proc stand for to a caller. With follow a link at the end is followed.
// errno is not 0 for what there is not.
func (s *server) resolve(c *caller, parts []string, follow bool, depth int) (node, unix.Errno) {
	var n node
	if depth > maxLinks {
		return n, unix.ELOOP
	}
	var at []string // below the outer /proc
	for i, part := range parts {
		rest, last := parts[i+1:], i == len(parts)-1
		if part == ".." {
			if len(at) == 0 {
				return s.resolveOuter(c, "/"+strings.Join(rest, "/"), follow, depth)
			}
			at = at[:len(at)-1]
			continue
		}
		if len(at) == 0 {
			if slices.Contains(links(), part) && last && !follow {
				return s.topLink(c, part, n)
			}
			into, errno := s.top(c, part)
			if errno != 0 {
				return n, errno
			}
			at = into
			continue
		}
		at = append(at, part)
		if _, ok := number(at[0]); !ok {
			continue // sys, pressure, sysvipc: nothing but files and folders
		}
		if len(at) == 3 && at[1] == "task" {
			if _, ok := number(part); !ok {
				return n, unix.ENOENT
			}
		}
		switch kind := classify(at); {
		case kind == refused, kind == nsLink && (follow || !last):
			return n, unix.EACCES
		case kind == nsLink || kind != plain && last && !follow:
			n.kind, n.path, n.pid = linkNode, path.Join(at...), s.processOf(at)
			return n, 0
		case kind != plain:
			return s.through(c, kind, at, rest, follow, depth)
		}
	}
	n.path, n.pid = path.Join(at...), s.processOf(at)
	if n.pid != 0 {
		switch at[len(at)-1] {
		case "mounts", "mountinfo", "mountstats":
			if inProcessFolder(at) {
				n.kind = tableNode
			}
		}
	}
	return n, 0
}

// inProcessFolder says whether the last of the components lies directly in a process's or thread's folder.
func inProcessFolder(at []string) bool {
	return len(at) == 2 || len(at) == 4 && at[1] == "task"
}

func (s *server) processOf(at []string) int {
	if len(at) == 0 {
		return 0
	}
	pid, _ := number(at[0]) // 0 if it is none
	return pid
}

// top is where a name in /proc itself leads, below the outer /proc.
func (s *server) top(c *caller, name string) ([]string, unix.Errno) {
	switch {
	case name == "self":
		return []string{strconv.Itoa(c.process())}, 0
	case name == "thread-self":
		return []string{strconv.Itoa(c.process()), "task", strconv.Itoa(c.tid)}, 0
	case name == "mounts", name == "net":
		return []string{strconv.Itoa(c.process()), name}, 0
	case slices.Contains(common(), name):
		return []string{name}, 0
	}
	pid, ok := number(name)
	if ok && pid == 1 { // as in a pid namespace: many look there to learn where they are
		pid = s.first
	}
	if !ok || !s.own(pid) {
		return nil, unix.ENOENT
	}
	return []string{strconv.Itoa(pid)}, 0
}

// topLink is one of the links of /proc itself, not followed.
func (s *server) topLink(c *caller, name string, n node) (node, unix.Errno) {
	n.kind, n.path, n.text = linkNode, name, "self/"+name
	switch name {
	case "self":
		n.text = strconv.Itoa(c.process())
	case "thread-self":
		n.text = fmt.Sprintf("%d/task/%d", c.process(), c.tid)
	}
	return n, 0
}

// through follows a link of a process's folder.
func (s *server) through(c *caller, kind wordKind, at, rest []string, follow bool, depth int) (node, unix.Errno) {
	n := node{kind: magicNode, path: path.Join(at...), pid: s.processOf(at)}
	if !s.own(n.pid) {
		return n, unix.ENOENT
	}
	target, errno := s.readlink(c, n.path)
	if errno != 0 {
		return n, errno
	}
	if at[len(at)-1] == "root" && kind == pathLink {
		target = "/"
	}
	if !strings.HasPrefix(target, "/") { // a pipe, a socket, memory
		if len(rest) > 0 {
			return n, unix.ENOTDIR
		}
		return n, 0
	}
	// What was opened by us must not be opened again without being looked at as then.
	if _, _, ok := under(target); ok || len(rest) > 0 {
		return s.resolveOuter(c, strings.Join(append([]string{target}, rest...), "/"), follow, depth)
	}
	return n, 0
}

// resolveOuter is what an absolute path in the step's root stands for, to which a link has led.
func (s *server) resolveOuter(c *caller, p string, follow bool, depth int) (node, unix.Errno) {
	tree, rest, ok := under(p)
	switch {
	case ok && tree == "proc":
		return s.resolve(c, rest, follow, depth+1)
	case ok && tree == "dev":
		if n, errno, served := s.device(c, rest, follow, depth+1); served {
			return n, errno
		}
	}
	return node{kind: rootNode, path: p}, 0
}

func isNumber(s string) bool {
	_, ok := number(s)
	return ok
}

// device finds what the components below /dev stand for; served is false for what the step has itself.
func (s *server) device(c *caller, parts []string, follow bool, depth int) (n node, errno unix.Errno, served bool) {
	name := strings.Join(parts, "/")
	switch parts[0] {
	case "fd":
		if len(parts) == 1 && !follow {
			return n, 0, false
		}
		n, errno = s.resolve(c, append([]string{"self", "fd"}, parts[1:]...), follow, depth)
		return n, errno, true
	case "stdin", "stdout", "stderr":
		if len(parts) > 1 || !follow {
			return n, 0, false
		}
		fd := strconv.Itoa(slices.Index([]string{"stdin", "stdout", "stderr"}, parts[0]))
		n, errno = s.resolve(c, []string{"self", "fd", fd}, follow, depth)
		return n, errno, true
	}
	n = node{kind: termNode, path: name}
	switch {
	case name == "ptmx" && !follow:
		return n, 0, false
	case name == "ptmx", name == "pts/ptmx":
		n.path = "ptmx"
		return n, 0, true
	case len(parts) == 2 && parts[0] == "pts" && isNumber(parts[1]):
		if !s.ownTerminal(parts[1]) {
			return n, unix.ENOENT, true
		}
		return n, 0, true
	case s.standIns && slices.ContainsFunc(devices(), func(d device) bool { return d.name == name }):
		return n, 0, true
	}
	return n, 0, false
}
