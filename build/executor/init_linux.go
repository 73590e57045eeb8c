package executor

import (
	"encoding/gob"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlFD is where the child finds its end of the control socket: the plan comes in, reports go out, and execve
// closes it, which is how the parent learns that the step runs.
const controlFD = 3

// initFailed is the child's exit code when the step never ran; the parent goes by the report, not by this.
const initFailed = 125

// report is what the child has to say.
type report struct {
	Op    string
	Msg   string
	Errno int // 0 where the reason is no errno
	Pid   int // from a supervisor: the step's first process
}

// Init is the child side. The program calls it first thing when it runs under the name InitArg0; it never returns.
//
// The process is the first one of the step's pid namespace, still with all privileges and our own binary as its image.
// Everything that counts per thread (namespaces, ids, capabilities, seccomp) is done with raw system calls on this one
// locked thread, which then becomes the step by execve; the runtime's other threads end there.
func Init() {
	runtime.LockOSThread()
	// Nobody but this process may look into it or trace it before the step's own image replaces ours.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	// Whoever started the build may have left descriptors open without close-on-exec (CVE-2024-21626).
	if err := unix.CloseRange(controlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fail(setup(err, "close inherited files"))
	}
	var p plan
	control := os.NewFile(controlFD, "control")
	if err := gob.NewDecoder(control).Decode(&p); err != nil {
		os.Exit(initFailed) // the parent is gone
	}
	switch {
	case p.Probe:
		fail(probe())
	case p.Supervise:
		os.Exit(supervise(&p))
	case p.Join != 0:
		fail(joinStep(&p))
	default:
		fail(becomeStep(&p))
	}
}

// fail reports err (nil: no failure) and ends the process.
func fail(err error) {
	var r report
	if err != nil {
		r.Msg = err.Error()
		var s *SetupError
		if errors.As(err, &s) {
			r.Op, r.Msg = s.Op, s.Err.Error()
		}
		var errno unix.Errno
		if errors.As(err, &errno) {
			r.Errno = int(errno)
		}
	}
	send(r)
	os.Exit(initFailed)
}

// send writes to the control socket. It can't fail in a way that anybody could be told of.
func send(r report) {
	_ = gob.NewEncoder(os.NewFile(controlFD, "control")).Encode(r)
}

// probe tries to mount a new procfs.
func probe() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return setup(err, "make mounts private")
	}
	return setup(unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""), "mount /proc")
}

// becomeStep sets the new namespaces up from inside and executes the step. It returns only on failure.
func becomeStep(p *plan) error {
	if err := enterNetwork(p); err != nil {
		return err
	}
	root, err := mountRootfs(p)
	if err != nil {
		return err
	}
	if err := mountAll(root, p); err != nil {
		return err
	}
	if p.Terminal {
		if err := openConsole(root, p); err != nil {
			return setup(err, "open terminal")
		}
	}
	// runc does so, too: a folder for the command's cwd appears below a mount, where the parent could not make it.
	if err := makeCwd(root, p); err != nil {
		return err
	}
	if err := restrict(root, p); err != nil {
		return err
	}
	if p.Hostname != "" {
		if err := unix.Sethostname([]byte(p.Hostname)); err != nil {
			return setup(err, "set host name")
		}
	}
	if err := pivot(root); err != nil {
		return err
	}
	return execStep(p)
}

func makeCwd(root rootDir, p *plan) error {
	fd, err := root.mkdirAll(p.Cwd, 0, 0)
	if err == nil {
		closing(fd)
		return nil
	}
	if errors.Is(err, unix.EROFS) {
		return nil // below a read-only mount: chdir will tell
	}
	return setup(err, "make working directory %q", p.Cwd)
}

// pivot makes the root file system "/" and lets go of the outer one, of which no descriptor is left after execve.
func pivot(root rootDir) error {
	if err := unix.Fchdir(root.fd); err != nil {
		return setup(err, "enter root file system")
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return setup(err, "pivot to root file system")
	}
	// The old root lies on top now, and is "." as well.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return setup(err, "let go of the outer root")
	}
	return setup(unix.Chdir("/"), "enter root file system")
}

// resetSignals puts signals that are ignored back to their default, since execve would leave them so: whoever started
// us may have (nohup does). Those with a handler go back to their default by execve itself. Raw calls, because
// os/signal would install sixty handlers first, at a cost of milliseconds.
func resetSignals() {
	const lastSignal, ignore = 64, 1
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var act struct{ handler, flags, restorer, mask uintptr } // the kernel's, on 64-bit machines
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0)
		if errno != 0 || act.handler != ignore {
			continue
		}
		act.handler = 0
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
	}
}
