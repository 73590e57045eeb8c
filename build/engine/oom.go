//go:build linux

package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/cgroups"
)

// killedCode is the exit code of a process that SIGKILL has ended, as shells have it.
const killedCode = 128 + int(syscall.SIGKILL)

// OutOfMemoryError says that a step failed while the kernel killed a process of its for
// want of memory: the step's own first one, if ExitCode is that of SIGKILL.
type OutOfMemoryError struct {
	ExitCode int
	cause    error
}

func (e *OutOfMemoryError) Error() string {
	if e.ExitCode == killedCode {
		return fmt.Sprintf("exit code: %d: killed: out of memory", e.ExitCode)
	}
	return fmt.Sprintf("exit code: %d, after a process was killed: out of memory", e.ExitCode)
}

func (e *OutOfMemoryError) Unwrap() error { return e.cause }

// ToProto makes the error travel.
func (e *OutOfMemoryError) ToProto() grpcerrors.TypedErrorProto {
	return &memoryMessage{OutOfMemoryError: *e}
}

// memoryWatch is an executor that tells when a step was short of memory. No executor can
// know it from the exit code, which is that of any SIGKILL.
type memoryWatch struct {
	executor.Executor
	kills counter
}

// Run implements [executor.Executor].
func (w memoryWatch) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	before := w.kills.read()
	rec, err := w.Executor.Run(ctx, id, root, mounts, p, started)
	exit, failed := errors.AsType[*gatewaypb.ExitError](err)
	if !failed || ctx.Err() != nil {
		return rec, err
	}
	short := w.kills.read() > before && (w.kills.ours || int(exit.ExitCode) == killedCode)
	if short || errors.Is(exit, syscall.ENOMEM) { // BuildKit's own word, of a cgroup that it made
		exit.Err = &OutOfMemoryError{ExitCode: int(exit.ExitCode), cause: exit.Err}
	}
	return rec, err
}

// counter is a file in which the kernel counts the processes that it has killed for want
// of memory.
type counter struct {
	path string
	ours bool // it counts those of our own cgroup, not of the whole machine
}

// killCounter is that of our cgroup, which steps share unless a container runtime gives
// them another one; else that of the machine.
func killCounter(shared bool) counter {
	if file := cgroupCounter(); shared && file != "" {
		return counter{path: file, ours: true}
	}
	return counter{path: "/proc/vmstat"}
}

// read is the number in the line "oom_kill N", as cgroups of both versions and the
// kernel's own statistics have it; 0 if there is none.
func (c counter) read() uint64 {
	text, err := os.ReadFile(c.path)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			return n
		}
	}
	return 0
}

// cgroupCounter is the file of the cgroup that limits our memory; "" if it can't be seen.
func cgroupCounter() string {
	if !cgroups.IsCgroup2UnifiedMode() {
		if dir, err := cgroups.GetOwnCgroupPath("memory"); err == nil {
			return existing(filepath.Join(dir, "memory.oom_control"))
		}
		return ""
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	const root, file = "/sys/fs/cgroup", "memory.events"
	// A container may know its path on the host, and see no more than its own cgroup.
	return cmp.Or(existing(filepath.Join(root, own[""], file)), existing(filepath.Join(root, file)))
}

// existing is file if it is there, else "".
func existing(file string) string {
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}
