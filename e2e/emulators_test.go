package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

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

// cmdRegistered: registered FILE keeps what this machine's kernel runs by which program, as it is now; "! registered FILE"
// fails if it is no more as the file says. The file system that shows it is mounted where nobody else sees it.
func cmdRegistered(ts *testscript.TestScript, neg bool, args []string) {
	const show = `mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && cd /proc/sys/fs/binfmt_misc && for f in *; do echo "== $f"; cat "$f" 2>/dev/null; done; true`
	out, err := exec.Command("unshare", "--mount", "sh", "-c", show).CombinedOutput() //nolint:noctx // it waits for nothing
	if err != nil {
		ts.Fatalf("read what is registered: %v: %s", err, out)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	mounted := strings.Contains(string(mounts), "binfmt_misc")
	text := fmt.Sprintf("mounted: %t\n%s", mounted, out)
	file := ts.MkAbs(filepath.Clean(args[0]))
	if !neg {
		ts.Check(os.WriteFile(file, []byte(text), 0o600))
		return
	}
	before, err := os.ReadFile(file)
	ts.Check(err)
	if string(before) != text {
		ts.Fatalf("was:\n%s\nis:\n%s", before, text)
	}
}
