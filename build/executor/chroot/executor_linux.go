package chroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/semaphore"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// InitArg0 is os.Args[0] of the re-executed children. A program that uses this package must call Init before anything
// else when it finds itself under this name.
const InitArg0 = "wherry-chroot"

// Options configure an executor. Root is required, the rest may stay zero.
type Options struct {
	// Root is a folder for what steps have put in place of their mounts, for resolv.conf and hosts. It is made, with
	// mode 0711, where it is missing, and should be on the file system of the snapshots: what is on another one is
	// copied instead of moved.
	Root string
	// DNS overrides parts of the outer resolv.conf; nil leaves it as it is.
	DNS *oci.DNSConfig
}

// chrootExecutor is the executor.Executor of this package. It is safe for concurrent use.
type chrootExecutor struct {
	opts    Options
	abi     int                      // of Landlock; 0: there is none
	self    func() (*os.File, error) // a handle to our own binary through which nothing can be written
	sources sourceLocks
	alone   *semaphore.Weighted // held by each step where steps could reach one another

	running step.Running[*runningStep]
}

// runningStep is one running step, as Exec needs to know it.
type runningStep struct {
	rootfs string
	pid    int // of its first process
	plan   *plan
}

// New returns an executor that runs steps by chroot. What a killed one has left in o.Root is not looked at: Recover
// has to be called before. It fails only if o.Root can't be made.
func New(o Options) (executor.Executor, error) {
	var err error
	if o.Root, err = step.MakeFolder(o.Root); err != nil {
		return nil, fmt.Errorf("executor folder: %w", err)
	}
	return &chrootExecutor{opts: o, abi: landlockABI(), self: sync.OnceValues(step.OpenSelf), alone: semaphore.NewWeighted(1)}, nil
}

// Run starts a step and waits for its end. A step that could not be set up gives a *executor.SetupError, one that
// ended with a code outside of ValidExitCodes (nil: only 0) a *gatewayapi.ExitError. What could not be put back where
// it was is an error as well, and stays for Recover. The Recorder is always nil: nothing is sampled.
func (e *chrootExecutor) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	st := &runningStep{}
	return nil, e.running.Do(id, st, started, func(id string, runs func()) error {
		if e.abi < landlockScopes { // abstract sockets would be common to all steps
			if err := e.alone.Acquire(ctx, 1); err != nil {
				return context.Cause(ctx)
			}
			defer e.alone.Release(1)
		}
		return e.withScene(ctx, id, root, mounts, p.Meta, func(s *scene, pl *plan) error {
			st.rootfs, st.plan = pl.Rootfs, pl
			return e.start(ctx, pl, s.lock, p, func(pid int) {
				st.pid = pid
				runs()
			})
		})
	})
}

// Exec runs another process in the step that Run has started under id, waiting for it to start if need be, with its
// environment, user and folder unless p has its own. The process ends with the step at the latest. Without such a
// step the error is executor.ErrNotRunning; the others are those of Run.
func (e *chrootExecutor) Exec(ctx context.Context, id string, p executor.ProcessInfo) error {
	st, ctx, leave, err := e.running.Join(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	joining, err := st.join(p.Meta)
	if err != nil {
		return err
	}
	return e.start(ctx, joining, nil, p, func(int) {})
}

// join is the running step's plan with what meta says differently.
func (st *runningStep) join(meta executor.Meta) (*plan, error) {
	if err := checkMeta(meta); err != nil {
		return nil, err
	}
	p := *st.plan
	supervisor, err := supervisorOf(st.pid)
	if err != nil {
		return nil, fmt.Errorf("find supervisor of step: %w", err)
	}
	p.Peers = []int{supervisor}
	p.Args, p.Terminal = meta.Args, meta.Tty
	if meta.Cwd != "" {
		p.Cwd = meta.Cwd
	}
	if len(meta.Env) > 0 {
		p.Env = step.DedupEnv(meta.Env)
	}
	if meta.User != "" {
		uid, gid, groups, err := oci.GetUser(st.rootfs, meta.User)
		if err != nil {
			return nil, fmt.Errorf("find user %q: %w", meta.User, err)
		}
		p.UID, p.GID, p.Groups = uid, gid, append([]uint32{gid}, groups...)
	}
	return &p, nil
}

// supervisorOf is the parent of a step's first process.
func supervisorOf(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	parent, ok := step.ParentIn(data)
	if !ok {
		return 0, errors.New("its state can't be read")
	}
	return parent, nil
}

// checkMeta refuses what this executor can't do, so that no request is dropped in silence.
func checkMeta(meta executor.Meta) error {
	if err := step.CheckMeta(meta); err != nil {
		return err
	}
	switch {
	case meta.SecurityMode == pb.SecurityMode_INSECURE:
		return errors.New("RUN --security=insecure is not possible under chroot isolation")
	case meta.LinuxResources != nil || meta.CgroupParent != "":
		return errors.New("resource limits and cgroup parents are not possible under chroot isolation")
	case meta.ReadonlyRootFS:
		return errors.New("a read-only root file system is not possible under chroot isolation")
	case meta.NetMode != pb.NetMode_UNSET && meta.NetMode != pb.NetMode_HOST && meta.NetMode != pb.NetMode_NONE:
		return fmt.Errorf("network mode %s is not available", meta.NetMode)
	}
	return nil
}

// withScene finds the root file system, puts everything in place that the step is to find there, makes the plan and
// calls f; then it takes out again what it has put in place.
func (e *chrootExecutor) withScene(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, meta executor.Meta, f func(*scene, *plan) error) (err error) {
	if err := checkMeta(meta); err != nil {
		return err
	}
	var undo step.Cleanups
	defer undo.Run(&err)

	rootfs, err := folderOf(ctx, root, &undo)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	resolvConf, hosts, err := step.EtcFiles(ctx, e.opts.Root, e.opts.DNS, meta, &undo)
	if err != nil {
		return err
	}
	p, err := newPlan(ctx, id, rootfs, meta, e.abi)
	if err != nil {
		return err
	}
	if err := step.EnsureWorkdir(rootfs, meta.Cwd, &p.Process); err != nil {
		return err
	}
	guests, err := e.resolveMounts(ctx, mounts, &undo)
	if err != nil {
		return err
	}
	s, err := newScene(e.opts.Root, id, rootfs)
	if err != nil {
		return err
	}
	undo.Add(s.strike)
	if err := s.fixtures(resolvConf, hosts, meta.NetMode != pb.NetMode_NONE); err != nil {
		return err
	}
	p.StandIns = s.standIns
	for _, g := range guests {
		if err := s.admit(ctx, g); err != nil {
			return fmt.Errorf("mount %s: %w", g.dest, err)
		}
	}
	e.sources.release(guests, true)
	if err := s.makeCwd(meta.Cwd); err != nil {
		return err
	}
	return f(s, p)
}

// folderOf is the folder that a root file system's only mount binds.
func folderOf(ctx context.Context, m executor.Mount, undo *step.Cleanups) (string, error) {
	ref, err := m.Src.Mount(ctx, false)
	if err != nil {
		return "", err
	}
	list, release, err := ref.Mount()
	if err != nil {
		return "", err
	}
	if release != nil {
		undo.Add(release)
	}
	return bound(list)
}

// bound is the source of a single bind mount.
func bound(list []mount.Mount) (string, error) {
	if len(list) != 1 || list[0].Type != "bind" && list[0].Type != "rbind" {
		return "", fmt.Errorf("%v is not one folder", list)
	}
	return list[0].Source, nil
}
