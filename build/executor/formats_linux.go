package executor

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
	"github.com/wherry-oci/wherry/build/userns"
)

// tagFormats is the byte that comes with the mount of binfmt_misc that a step's formats are registered in.
const tagFormats = 3

// sysFD is where a child finds the mount of sysfs that it was given.
const sysFD = step.ControlFD + 1

// ErrNotJoinable says that no other process can be run in a step that has formats of its own: a process of several
// threads can't enter its user namespace.
var ErrNotJoinable = errors.New("no process can join an emulated step")

// WithFormats returns an executor like ex, of this package, whose steps run in a user namespace of their own, with the
// same ids. There the kernel knows these formats of programs and no others beside its own: lines as binfmt_misc wants
// them, whose interpreters are opened outside of the step. The host's are not touched, and no longer seen by the step.
// It is false for an executor of another package.
//
// To the kernel the step has no rights outside of that namespace, as all have that an ordinary user runs: it can't make
// device nodes, and on the host's network has no ports below 1024.
func WithFormats(ex executor.Executor, formats []string) (executor.Executor, bool) {
	e, ok := ex.(*stepExecutor)
	if !ok {
		return nil, false
	}
	own := &stepExecutor{opts: e.opts, self: e.self, appArmor: e.appArmor}
	own.formats = sync.OnceValues(func() ([]string, error) { return own.executable(formats) })
	return own, true
}

// executable has those interpreters replaced by copies that SELinux would not let a step execute where they are.
func (e *stepExecutor) executable(formats []string) ([]string, error) {
	const interpreter = 6
	lines := slices.Clone(formats)
	for i, line := range lines {
		fields := strings.Split(line, line[:1])
		program, err := e.opts.Domain.Executable(fields[interpreter], e.opts.Root)
		if err != nil {
			return nil, err
		}
		fields[interpreter] = program
		lines[i] = strings.Join(fields, line[:1])
	}
	return lines, nil
}

// trialFormat is one that no program has. Its interpreter is always there.
const trialFormat = "|wherry|M|0|\\x7fwherry||/proc/self/exe|F"

// FormatsWork says why formats can't be registered for steps alone: nil if they can. hostPID is that of Options. It is
// found by trying, with a child process.
func FormatsWork(ctx context.Context, hostPID bool) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p := &plan{CloneFlags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Formats: []string{trialFormat}, Probe: true, SharedProc: hostPID}
	if !hostPID {
		p.CloneFlags |= unix.CLONE_NEWPID
	}
	e := &stepExecutor{self: step.OpenSelf}
	c, err := e.spawn(p, []*os.File{null, null, null})
	if err != nil {
		return err
	}
	defer c.Control.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Proc.Kill() })
	defer stop()
	var held heldFiles
	defer held.close()
	c.Got = e.receiver(&held)
	err = c.Handshake(p)
	if _, werr := c.Proc.Wait(); werr != nil {
		return werr
	}
	return whyNoFormats(err)
}

// What registering formats begins with, as a SetupError has it.
const mountFormats, mountProc = "mount binfmt_misc", "mount /proc"

// NoFormatsError says in words why the kernel lets no formats be registered for steps alone.
type NoFormatsError struct {
	Reason string
	Err    error // what the kernel said
}

func (e *NoFormatsError) Error() string { return e.Reason }

// Unwrap returns what the kernel said.
func (e *NoFormatsError) Unwrap() error { return e.Err }

// whyNoFormats finds words for what the kernel refuses. Of others its own have to do.
func whyNoFormats(err error) error {
	refused, ok := errors.AsType[*SetupError](err)
	switch {
	case !ok || !errors.Is(err, unix.EPERM):
		return err
	case refused.Op == mountFormats:
		return &NoFormatsError{"before Linux 6.7 there is one list of emulators for the whole machine", err}
	case refused.Op == mountProc:
		return &NoFormatsError{"an outer container hides parts of /proc", err}
	}
	return err
}

// heldFiles are open as long as a step runs.
type heldFiles []*os.File

func (h heldFiles) close() {
	for _, f := range h {
		_ = f.Close() // nothing was written
	}
}

// mapIDs has every id in a plan's user namespace be what it is here.
func mapIDs(sys *syscall.SysProcAttr) {
	if sys.Cloneflags&unix.CLONE_NEWUSER == 0 {
		return
	}
	sys.UidMappings, sys.GidMappings = userns.SameIDs()
	text, err := os.ReadFile("/proc/self/setgroups")
	sys.GidMappingsEnableSetgroups = err != nil || strings.TrimSpace(string(text)) != "deny" // for good, below this one
}

// planFormats gives a step the namespace in which its formats are registered.
func (e *stepExecutor) planFormats(p *plan) (err error) {
	if e.formats == nil {
		return nil
	}
	p.Formats, err = e.formats()
	p.CloneFlags |= unix.CLONE_NEWUSER
	p.SysFS = !e.opts.Rootless
	return err
}

// spawnMounted starts a child, with the mount that it may not make itself.
func (e *stepExecutor) spawnMounted(p *plan, stdio []*os.File) (*step.Child, error) {
	if !p.SysFS {
		return e.spawn(p, stdio)
	}
	sys, err := mountSysFS()
	if err != nil {
		return nil, step.Setup(err, "mount /sys")
	}
	defer sys.Close()
	return e.spawn(p, append(stdio, sys))
}

// mountSysFS returns a new sysfs, attached nowhere. It shows the network of this process, which is that of every step
// whose user namespace may not mount it.
func mountSysFS() (*os.File, error) {
	return newMount("sysfs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func newMount(kind string, attrs int) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer step.Closing(fs)
	if err := unix.FsconfigSetString(fs, "source", kind); err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// registerFormats tells the kernel of formats for this user namespace. The mount for it is attached nowhere, so that no
// step can find it, and goes to the engine: the formats are forgotten when nobody has it open.
func registerFormats(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	m, err := newMount("binfmt_misc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return step.Setup(err, mountFormats)
	}
	defer m.Close()
	register, err := unix.Openat(int(m.Fd()), "register", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return step.Setup(err, "open binfmt_misc")
	}
	defer step.Closing(register)
	for _, line := range lines {
		if _, err := unix.Write(register, []byte(line)); err != nil {
			return step.Setup(err, "register %s", line)
		}
	}
	return step.Setup(step.SendFile(tagFormats, int(m.Fd())), "hand binfmt_misc over")
}
