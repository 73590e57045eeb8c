package step

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
)

// Reap waits for the first process, then kills and waits for all others, also those that were orphaned to us.
func Reap(proc fs.FS, first int) (code int) {
	ended := false
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // ECHILD: nobody is left
			return code
		case pid == first:
			ended, code = true, ws.ExitStatus()
			if ws.Signaled() {
				code = 128 + int(ws.Signal())
			}
		}
		if ended {
			KillDescendants(proc)
		}
	}
}

// KillDescendants kills every process below this one. A process that forks meanwhile is met again: its child comes to
// us when it dies, and every death is followed by another look.
func KillDescendants(proc fs.FS) {
	parents := parentsOfAll(proc)
	for pid := range parents {
		if descends(pid, os.Getpid(), parents) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone by now
		}
	}
}

func descends(pid, from int, parents map[int]int) bool {
	for range len(parents) {
		parent, ok := parents[pid]
		if !ok || parent == from {
			return ok
		}
		pid = parent
	}
	return false
}

// parentsOfAll reads the parent of every process.
func parentsOfAll(proc fs.FS) map[int]int {
	list, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil // it has shown processes before
	}
	out := make(map[int]int, len(list))
	for _, d := range list {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		data, err := fs.ReadFile(proc, path.Join(d.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		if parent, ok := ParentIn(data); ok {
			out[pid] = parent
		}
	}
	return out
}

// ParentIn finds the parent in the content of a process's stat file.
func ParentIn(stat []byte) (pid int, ok bool) {
	// "pid (name) state ppid ...", and a name may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	pid, err := strconv.Atoi(string(fields[1]))
	return pid, err == nil
}
