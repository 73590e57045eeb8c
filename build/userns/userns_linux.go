package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	mobyuserns "github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// InitArg0 is os.Args[0] of the child that waits for its id maps. A program that uses this package must call Init
// before anything else when it finds itself under this name.
const InitArg0 = "wherry-userns"

// insidePrefix stands in front of the original os.Args[0] of a program that Enter has started: unlike a variable of
// the environment it can't leak into what a build runs.
const insidePrefix = "wherry-inside:"

// privatePrefix stands there instead when no process was started: this one went into its mount namespace and ran the
// program again in its own place.
const privatePrefix = "wherry-private:"

// Program is os.Args[0] as it was before Enter or Try started this program anew.
func Program() string {
	return strings.TrimPrefix(strings.TrimPrefix(os.Args[0], insidePrefix), privatePrefix)
}

// Mapping says which ids a process has.
type Mapping int

const (
	// None means that ids are the machine's own: there is no user namespace.
	None Mapping = iota
	// Range means a user namespace with many ids.
	Range
	// Single means a user namespace in which only id 0 exists.
	Single
)

// String returns "none", "range" or "single".
func (m Mapping) String() string {
	return [...]string{"none", "range", "single"}[m]
}

// Options say how to enter. The zero value takes the best that is to be had, silently.
type Options struct {
	// SingleID maps one id only, even for root or where newuidmap would give a range.
	SingleID bool
	// Notice is told, once, why a range of ids could not be had; may be nil.
	Notice func(msg string)
}

// Enter runs this program again, with the same arguments, environment, streams and process group, as root of new
// namespaces, and returns its exit code (128+n if signal n ended it). Signals that would end this process are passed
// on to it, and it does not outlive this process. entered is false where the caller is inside already: it is the
// program that Enter has started, and goes on only if it may mount.
//
// For root with CAP_SYS_ADMIN, who needs no user namespace, no process is started: the program begins anew in this
// one, in a mount namespace of its own, and Enter returns only there.
//
// A kernel or a container that forbids the namespaces gives a *NotPermittedError; then nothing was run.
func Enter(ctx context.Context, o Options) (code int, entered bool, err error) {
	if strings.HasPrefix(os.Args[0], insidePrefix) {
		return 0, false, settle()
	}
	if strings.HasPrefix(os.Args[0], privatePrefix) {
		return 0, false, privateMounts()
	}
	if !o.SingleID && privileged() {
		return 0, false, notPermitted(replace(), false)
	}
	// The death signal is sent when the thread that started the child ends, so that thread has to stay ours.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	notice := ""
	for _, m := range mappings(o) {
		var c *child
		if c, err = start(ctx, m, os.Args); err == nil {
			code, err = attend(c, func() {
				if notice != "" && o.Notice != nil {
					o.Notice(notice)
				}
			})
		}
		if err == nil {
			return code, true, nil
		}
		notice = fmt.Sprintf("only one id is mapped: %v", err)
	}
	return 0, false, notPermitted(err, false)
}

// Try runs this program with other arguments, args[0] being its name, in namespaces with this mapping, and returns its
// exit code. The program has to call Enter. It is how to find out what works here; nothing of it stays.
//
// What is not there is a *NotPermittedError, or a *NoRangeError.
func Try(ctx context.Context, m Mapping, args []string) (code int, err error) {
	runtime.LockOSThread() // as in Enter
	defer runtime.UnlockOSThread()
	c, err := start(ctx, m, args)
	if err != nil {
		return 0, notPermitted(err, false)
	}
	return attend(c, func() {})
}

// settle is what the program does first that Enter or Try has started: it says whether it may mount, and ends here if
// not. Its parent then looks for another way.
func settle() error {
	verdict := os.NewFile(verdictFD, "verdict")
	err := privateMounts()
	var refused unix.Errno
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if _, err := verdict.Write([]byte{byte(refused)}); err != nil {
		return fmt.Errorf("report to the parent: %w", err)
	}
	if refused != 0 {
		os.Exit(startFailed)
	}
	return errors.Join(verdict.Close(), dieWithParent())
}

// privateMounts lets mounts of the outside come in and none of ours go out. It is also the test whether we have any
// rights here: AppArmor lets a user namespace be made and then denies everything in it; containers with CAP_SYS_ADMIN
// may mount and have no pivot_root; in a plain chroot it does not work.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return notPermitted(fmt.Errorf("make mounts private: %w", err), true)
	}
	if onInitramfs() {
		return notPermitted(fmt.Errorf("pivot_root: %w", unix.EINVAL), true)
	}
	// What is missing is found out after what is forbidden.
	if err := unix.PivotRoot("/proc/nowhere", "/proc/nowhere"); !errors.Is(err, unix.ENOENT) {
		return notPermitted(fmt.Errorf("pivot_root: %w", err), true)
	}
	return nil
}

// onInitramfs: nobody can pivot out of the file system that the kernel itself has mounted first, and that some virtual
// machines never leave (pivot_root(2)).
func onInitramfs() bool {
	top, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	return err == nil && len(top) > 0 && top[0].ID == top[0].Parent
}

// dieWithParent sets the death signal anew: gaining capabilities at exec has cleared it. It belongs to a thread, and
// threads may end.
func dieWithParent() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	if errno == unix.ENOTSUP { // with cgo, which has no say over all threads: this one, then
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("set death signal: %w", err)
		}
	} else if errno != 0 {
		return fmt.Errorf("set death signal: %w", errno)
	}
	return nil
}

// replace runs the program again in place of this process, in a mount namespace of its own. A thread may enter one
// alone, and exec keeps what the calling thread has. It returns only if it fails.
func replace() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	args := append([]string{privatePrefix + os.Args[0]}, os.Args[1:]...)
	return unix.Exec("/proc/self/exe", args, os.Environ())
}

// Current says how this process stands: by what its id maps hold, whoever made them.
func Current() Mapping {
	uids, gids := mappedIDs("/proc/self/uid_map"), mappedIDs("/proc/self/gid_map")
	switch {
	case !mobyuserns.RunningInUserNS():
		return None
	case uids <= 1 || gids <= 1:
		return Single
	}
	return Range
}

// Init waits until the id maps of this process are written and then runs the program again, which gains the
// capabilities of root by that. It never returns.
func Init() {
	runtime.LockOSThread()
	// One byte: the maps are there. None: the parent has given up or is gone.
	if n, err := unix.Read(goAheadFD, make([]byte, 1)); n != 1 || err != nil || len(os.Args) < 2 {
		os.Exit(startFailed)
	}
	unix.CloseOnExec(goAheadFD)
	args := append([]string{insidePrefix + os.Args[1]}, os.Args[2:]...)
	if err := unix.Exec("/proc/self/exe", args, os.Environ()); err != nil {
		os.Exit(startFailed)
	}
}

// attend passes signals on until the child has ended, and returns its exit code. settled is called when it may mount;
// where it may not the error is a *NotPermittedError.
func attend(c *child, settled func()) (int, error) {
	stop := forwardSignals(c.Process)
	refused := c.refusal()
	if refused == nil {
		settled()
	}
	state, err := c.Wait()
	stop()
	if refused != nil {
		return 0, notPermitted(refused, true)
	}
	if err != nil {
		return 0, fmt.Errorf("wait for the program in its namespace: %w", err)
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}

// errnoOf finds the errno in an error of os.StartProcess, whose path would only confuse.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
