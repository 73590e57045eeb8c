package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// canEmulate says whether steps for other architectures can be run by emulators that nobody has registered.
func canEmulate() bool {
	var name unix.Utsname
	var major, minor int
	if unix.Uname(&name) != nil || runtime.GOARCH != "amd64" {
		return false
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil || major*100+minor < 607 {
		return false
	}
	for _, arch := range []string{"aarch64", "arm", "riscv64"} {
		if _, err := exec.LookPath("qemu-" + arch + "-static"); err != nil {
			return false
		}
	}
	return true
}

// cmdRegistered: registered [same] FILE keeps what this machine's kernel runs by which program, as it is now; with "same"
// it has to be what the file says. The file system that shows it is mounted where nobody else sees it.
func cmdRegistered(ts *testscript.TestScript, _ bool, args []string) {
	const show = `mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && cd /proc/sys/fs/binfmt_misc && for f in *; do echo "== $f"; cat "$f" 2>/dev/null; done; true`
	out, err := exec.Command("unshare", "--mount", "sh", "-c", show).CombinedOutput() //nolint:noctx // it waits for nothing
	if err != nil {
		ts.Fatalf("read what is registered: %v: %s", err, out)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	mounted := strings.Contains(string(mounts), "binfmt_misc")
	text := fmt.Sprintf("mounted: %t\n%s", mounted, out)
	file := ts.MkAbs(filepath.Clean(args[len(args)-1]))
	if args[0] != "same" {
		ts.Check(os.WriteFile(file, []byte(text), 0o600))
		return
	}
	before, err := os.ReadFile(file)
	ts.Check(err)
	if string(before) != text {
		ts.Fatalf("was:\n%s\nis:\n%s", before, text)
	}
}

// otherMachine is a program on the stories' PATH: machine [-arm64] [-alone] PROGRAM ARG... runs a program, as root, in a
// user namespace that stands for a machine of its own. It has an emulator for arm64 registered, or none; with "-alone"
// nobody in it gets a user namespace, and so a binfmt_misc, of his own, as before Linux 6.7.
const otherMachine = "machine"

// insideMachine is os.Args[0] of this program in it.
const insideMachine = "machine-inside"

func runOnMachine(args []string) {
	cmd := exec.Command("/proc/self/exe", args...) //nolint:noctx // the story's command has the limit
	cmd.Args[0] = insideMachine
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
		Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, otherMachine+":", err)
		os.Exit(126)
	}
	os.Exit(0)
}

func beMachine(args []string) {
	if err := becomeOnMachine(args); err != nil {
		fmt.Fprintln(os.Stderr, otherMachine+":", err)
	}
	os.Exit(126)
}

func becomeOnMachine(args []string) error {
	const dir = "/proc/sys/fs/binfmt_misc"
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
		return err
	}
	for ; strings.HasPrefix(args[0], "-"); args = args[1:] {
		switch args[0] {
		case "-arm64":
			emulator, err := exec.LookPath("qemu-aarch64-static")
			if err != nil {
				return err
			}
			const magic = `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00`
			const mask = `\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`
			line := fmt.Sprintf(":qemu-aarch64:M:0:%s:%s:%s:FC", magic, mask, emulator)
			if err := os.WriteFile(filepath.Join(dir, "register"), []byte(line), 0o600); err != nil {
				return err
			}
		case "-alone":
			if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o600); err != nil {
				return err
			}
		default:
			return fmt.Errorf("no flag %q", args[0])
		}
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(program, args, os.Environ())
}
