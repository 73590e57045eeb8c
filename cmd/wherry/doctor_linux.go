package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build"
	"github.com/wherry-oci/wherry/build/userns"
)

func (e *env) systemFacts() systemFacts {
	f := systemFacts{OS: "Linux", Arch: runtime.GOARCH, User: strconv.Itoa(os.Geteuid())}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		f.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	if u, err := user.Current(); err == nil {
		f.User = fmt.Sprintf("%s (%s)", u.Username, u.Uid)
	}
	if pretty := prettyName("/etc/os-release"); pretty != "" {
		f.OS = pretty
	}
	f.SecurityModules = securityModules("/")
	return f
}

// securityModules are those in force in the kernel that tells below root. Where the list is not mounted, as in containers,
// the two that label processes tell of themselves.
func securityModules(root string) []string {
	if list, err := os.ReadFile(filepath.Join(root, "sys/kernel/security/lsm")); err == nil {
		return strings.FieldsFunc(string(list), func(r rune) bool { return r == ',' || r == '\n' })
	}
	found := []string{}
	if on, err := os.ReadFile(filepath.Join(root, "sys/module/apparmor/parameters/enabled")); err == nil && strings.HasPrefix(string(on), "Y") {
		found = append(found, "apparmor")
	}
	if _, err := os.Stat(filepath.Join(root, "sys/fs/selinux/enforce")); err == nil {
		found = append(found, "selinux")
	}
	return found
}

// prettyName is what the system calls itself (os-release(5)).
func prettyName(file string) string {
	r, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer r.Close()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// filesystemOf names the file system of a folder, and says how much an ordinary user may still write there.
func filesystemOf(dir string) (name string, free int64) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "", 0
	}
	name = map[int64]string{
		unix.BTRFS_SUPER_MAGIC: "btrfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.XFS_SUPER_MAGIC: "xfs", unix.FUSE_SUPER_MAGIC: "fuse", 0x2fc12fc1: "zfs",
	}[int64(st.Type)] //nolint:unconvert // 32 bits wide on some machines
	if name == "" {
		name = fmt.Sprintf("file system %#x", st.Type)
	}
	return name, int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert,gosec // as above
}

// findRungs tries each way to build.
func (e *env) findRungs(ctx context.Context, storeDir string) (buildFacts, error) {
	if err := tempWritable(); err != nil {
		return buildFacts{}, err
	}
	rungs, err := build.Rungs(ctx, existing(storeDir))
	if err != nil {
		return buildFacts{}, err
	}
	var f buildFacts
	for _, r := range rungs {
		facts := rungFacts{Rung: r.Letter, Name: r.Name, Isolation: string(r.Isolation), Works: r.Reason == nil}
		if r.Reason != nil {
			facts.Reason, facts.Hint = r.Reason.Error(), e.rungHint(r.Reason)
		} else if f.Rung == "" {
			f.Rung, f.Isolation, f.Snapshots = r.Letter, string(r.Isolation), snapshotsOf(r)
			f.Steps = r.Isolation != build.IsolationNone
			f.best, f.profile, f.label, f.noLabel = r, r.Profile, r.Label, r.NoLabel
			if no, ok := errors.AsType[*build.NotLabelledError](r.NoLabel); ok {
				f.LabelHint = no.Hint
			}
		}
		f.Rungs = append(f.Rungs, facts)
	}
	return f, nil
}

// rungHint is the command or setting that would bring a way to build.
func (e *env) rungHint(reason error) string {
	if refused, ok := errors.AsType[*userns.NotPermittedError](reason); ok {
		if refused.Container && e.inPod() {
			return podNamespaces
		}
		return refused.Hint
	}
	if e, ok := errors.AsType[*userns.NoRangeError](reason); ok {
		return e.Hint
	}
	if no, ok := errors.AsType[*build.NoChrootError](reason); ok {
		if no.Hint != "" && e.inPod() {
			return podRoot
		}
		return no.Hint
	}
	return ""
}

// snapshotsOf is how the file systems of steps are put together.
func snapshotsOf(r build.Rung) string {
	if r.Overlay {
		return "overlayfs"
	}
	return "folders, handed from step to step"
}

// bestRung is the way to build that builds take.
type bestRung = build.Rung

// platformsOf are those that images are mostly made for; none where no step can be run.
func (e *env) platformsOf(b buildFacts) []platformFacts {
	if !b.Steps {
		return nil
	}
	var dirs []string
	if dir, err := e.emulatorDir(""); err == nil && dir != "" {
		dirs = []string{dir}
	}
	var list []platformFacts
	for _, arch := range []string{"amd64", "arm64", "386", "arm", "ppc64le", "riscv64", "s390x"} {
		steps := b.best.Steps(arch, dirs...)
		f := platformFacts{Platform: "linux/" + arch, Runs: "native", Emulator: steps.Emulator, Registered: steps.Registered}
		switch none, ok := errors.AsType[*build.NoEmulatorError](steps.Reason); {
		case ok:
			f.Runs, f.Reason, f.Hint = "no", none.Reason, hintForEmulators(none, "all")
		case steps.Emulator != "":
			f.Runs = "emulated"
		}
		list = append(list, f)
	}
	return list
}

// nodeTime bounds how long the nodes of a builder are asked.
const nodeTime = 5 * time.Second

// nodesInUse asks the nodes of the builder that is in use.
func (e *env) nodesInUse(ctx context.Context) ([]nodeFacts, error) {
	b, err := e.chooseBuilder("")
	if err != nil || b == nil {
		return nil, err
	}
	var list []nodeFacts
	for _, n := range build.Status(ctx, b.Nodes, build.StatusOptions{Timeout: nodeTime}) {
		f := nodeFacts{Builder: b.Name, Node: n.Node.Name, Endpoint: n.Node.Endpoint, Works: n.Err == nil, Version: n.Version, Platforms: nodePlatforms(n)}
		if n.Err != nil {
			f.Error = n.Err.Error()
		}
		list = append(list, f)
	}
	return list, ctx.Err()
}
