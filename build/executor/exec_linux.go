package executor

import (
	"context"
	"fmt"
	"runtime"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// ErrNotRunning says that a step to execute something in does not exist, or has ended.
var ErrNotRunning = step.ErrNotRunning

// Exec runs another process in the step that Run has started under id, waiting for it to start if need be, with its
// environment, user and folder unless p has its own. The process ends with the step at the latest. Without such a
// step the error is ErrNotRunning; the others are those of Run.
func (e *stepExecutor) Exec(ctx context.Context, id string, p executor.ProcessInfo) error {
	st, ctx, leave, err := e.running.Join(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	joining, err := e.joinPlan(st, p.Meta)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		result <- e.start(ctx, joining, st.group, p, func(int) {})
	}()
	return <-result
}

// joinPlan is the running step's plan with what meta says differently.
func (e *stepExecutor) joinPlan(st *runningStep, meta executor.Meta) (*plan, error) {
	if err := step.CheckMeta(meta); err != nil {
		return nil, err
	}
	if len(st.plan.Formats) > 0 {
		return nil, ErrNotJoinable
	}
	p := *st.plan
	p.Join, p.CloneFlags, p.JoinFlags = st.pid, 0, p.CloneFlags&^unix.CLONE_NEWPID
	if p.NetNS != "" {
		p.JoinFlags |= unix.CLONE_NEWNET
	}
	if p.CgroupNS {
		p.JoinFlags |= unix.CLONE_NEWCGROUP
	}
	p.Args, p.Terminal = meta.Args, meta.Tty
	if meta.Cwd != "" {
		p.Cwd = meta.Cwd
	}
	if len(meta.Env) > 0 {
		p.Env = step.DedupEnv(meta.Env)
	}
	if meta.User != "" && !e.opts.SingleID {
		uid, gid, groups, err := oci.GetUser(st.rootfs, meta.User)
		if err != nil {
			return nil, fmt.Errorf("find user %q: %w", meta.User, err)
		}
		p.UID, p.GID, p.Groups = uid, gid, append([]uint32{gid}, groups...)
	}
	return &p, nil
}

// enterPIDNamespace makes processes that this thread starts be born into the pid namespace of process pid. There may
// be no way back (in a user namespace our own pid namespace is not ours), so the thread must not be used again.
func enterPIDNamespace(pid int) error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return step.Setup(err, "open pid namespace of step")
	}
	defer step.Closing(fd)
	return step.Setup(unix.Setns(fd, unix.CLONE_NEWPID), "join pid namespace of step")
}

// joinStep enters the namespaces of a running step, whose pidfd follows the control socket, and executes the plan's
// command in it. It returns only on failure.
func joinStep(p *plan) error {
	const pidFD = step.ControlFD + 1
	if err := confine(p); err != nil {
		return err
	}
	// A mount namespace can only be entered by a thread whose root and cwd are its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return step.Setup(err, "unshare folders")
	}
	if err := unix.Setns(pidFD, int(p.JoinFlags)); err != nil {
		return step.Setup(err, "join namespaces of step")
	}
	if p.Terminal {
		root, err := step.OpenRootDir("/")
		if err != nil {
			return step.Setup(err, "open root file system")
		}
		if err := openConsole(root, p); err != nil {
			return step.Setup(err, "open terminal")
		}
	}
	return becomeProgram(p)
}
