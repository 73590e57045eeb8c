package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/wherry-oci/wherry/e2e/base"
)

// A virtual machine has what no container can: a kernel with another security module in force, and a cgroup v2 of its
// own. It is made of a Debian root file system as an initramfs, starts within seconds, and runs this very test binary.

// vmVariable is set inside of such a machine, to the security module that is in force.
const vmVariable = "WHERRY_E2E_VM"

// vmEmulator is an emulator that the stories there find in a folder which is no place for programs.
const vmEmulator = "qemu-aarch64-static"

// vmLimit ends a machine that hangs.
const vmLimit = 10 * time.Minute

// vmStories are those of TestStories that are lived there as well: all kinds of mounts, users, outputs and limits.
func vmStories(module string) []string {
	if module == "apparmor" {
		return []string{"build_limits", "run_children_end", "unprivileged_with_a_range"}
	}
	return []string{
		"build_run_mounts", "run_keeps_attributes", "run_ssh", "unprivileged_with_a_range", "unprivileged_with_one_id",
	}
}

// TestVM runs the stories in testdata/vm, and some others, in a virtual machine for each security module.
func TestVM(t *testing.T) {
	if module := os.Getenv(vmVariable); module != "" {
		runScripts(t, vmScripts(t, module))
		return
	}
	for _, program := range []string{"qemu-system-x86_64", vmEmulator, "mmdebstrap", "cpio", "zstd", "xz"} {
		if _, err := exec.LookPath(program); err != nil || runtime.GOARCH != "amd64" || os.Getuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatalf("no virtual machine without %s and root on amd64; in CI nothing is skipped", program)
			}
			t.Skipf("no virtual machine without %s and root on amd64", program)
		}
	}
	system, err := vmSystem(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"selinux", "apparmor"} {
		t.Run(module, func(t *testing.T) {
			t.Parallel()
			bootVM(t, system, module)
		})
	}
}

func vmScripts(t *testing.T, module string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "vm", module+"*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal("no stories", err)
	}
	for _, name := range vmStories(module) {
		files = append(files, filepath.Join("testdata", name+".txtar"))
	}
	return files
}

// bootVM has the stories of one module told, and fails unless each of them has passed.
func bootVM(t *testing.T, system, module string) {
	ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
	defer cancel()
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := vmInitrd(ctx, system, module, initrd); err != nil {
		t.Fatal(err)
	}
	machine := exec.CommandContext(ctx, "qemu-system-x86_64", "-m", "5G", "-cpu", "max", "-nographic", "-no-reboot",
		"-kernel", filepath.Join(system, "vmlinuz"), "-initrd", initrd,
		"-append", fmt.Sprintf("console=ttyS0 loglevel=1 panic=-1 %s=1 security=%s lsm=%[1]s rdinit=/init", module, module))
	out, err := machine.CombinedOutput()
	out = bytes.ReplaceAll(out, []byte("\r"), nil)
	if err != nil || !bytes.Contains(out, []byte("VM: exit code 0\n")) || bytes.Contains(out, []byte("--- SKIP")) {
		t.Fatalf("the machine: %v\n%s", err, failedStories(out))
	}
	for _, file := range vmScripts(t, module) {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if !bytes.Contains(out, []byte("--- PASS: TestVM/"+name+" (")) {
			t.Errorf("%s was not told in the machine:\n%s", name, out)
		}
	}
}

// failedStories is what a machine has printed of the stories that failed, or all of it if none has said so.
func failedStories(out []byte) []byte {
	start := []byte("=== CONT  ")
	failed := slices.DeleteFunc(bytes.Split(out, start), func(story []byte) bool { return !bytes.Contains(story, []byte("FAIL: ")) })
	if len(failed) == 0 {
		return out
	}
	return bytes.Join(failed, start)
}

// vmSystem is a folder with a Debian system: vmlinuz, modules/ and root.zst, a part of an initramfs. It is made once and
// kept in the user's cache.
func vmSystem(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	const packages = "linux-image-cloud-amd64,busybox-static,kmod,iproute2,procps,passwd,uidmap,openssh-client,apparmor,policycoreutils,selinux-policy-default"
	dir := filepath.Join(cache, "wherry-e2e", "vm-trixie")
	if _, err := os.Stat(filepath.Join(dir, "root.zst")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "modules"), 0o755); err != nil {
		return "", err
	}
	root, err := os.MkdirTemp(dir, "root-")
	if err != nil {
		return "", err
	}
	script := `set -e
mmdebstrap --quiet --variant=minbase --include=` + packages + ` --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' trixie "$1"
cp "$1"/boot/vmlinuz-* "$2/vmlinuz"
for module in overlayfs/overlay binfmt_misc; do
	xz -dc "$1"/lib/modules/*/kernel/fs/$module.ko.xz >"$2/modules/$(basename $module).ko"
done
rm -rf "$1"/boot "$1"/lib/modules "$1"/usr/share/selinux "$1"/var/lib/apt/lists "$1"/var/cache "$1"/dev/*
mkdir -p "$1/new" "$1/story"
cd "$1"
find . -print0 | cpio --quiet --null -o -H newc | zstd -q -3 -T2 -o "$2/part"
mv "$2/part" "$2/root.zst"`
	out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", root, dir).CombinedOutput()
	if err = errors.Join(err, os.RemoveAll(root)); err != nil {
		return "", fmt.Errorf("make a virtual machine's system: %w\n%s", err, out)
	}
	return dir, nil
}

// vmInitrd adds to the system what a machine runs: this program with its stories, wherry, and the images to build on.
func vmInitrd(ctx context.Context, system, module, initrd string) error {
	dir, err := os.MkdirTemp("", "wherry-vm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the system's folder for that
	s := &suite{dir: filepath.Join(dir, "story")}
	if err := errors.Join(os.MkdirAll(s.bin(), 0o755), s.wherry(ctx)); err != nil {
		return err
	}
	index, err := base.Index(ctx)
	if err != nil {
		return err
	}
	if _, err := layout.Write(filepath.Join(s.dir, "base"), index); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	emulator, err := exec.LookPath(vmEmulator)
	if err != nil {
		return err
	}
	run := fmt.Sprintf("cd /story/e2e && CI=true %s=%s %s=/story/bin/wherry %s=/story/base exec ./e2e.test -test.run '^TestVM$' -test.v -test.parallel 1\n",
		vmVariable, module, binaryVariable, baseVariable)
	if module == "selinux" {
		run = "setenforce 1\n" + run
	}
	return errors.Join(
		os.Mkdir(filepath.Join(s.dir, "e2e"), 0o755), os.Mkdir(filepath.Join(s.dir, "emulators"), 0o755),
		copyFile(emulator, filepath.Join(s.dir, "emulators", vmEmulator), 0o755),
		copyFile(self, filepath.Join(s.dir, "e2e", "e2e.test"), 0o755),
		os.CopyFS(filepath.Join(s.dir, "e2e", "testdata"), os.DirFS("testdata")),
		os.CopyFS(filepath.Join(s.dir, "modules"), os.DirFS(filepath.Join(system, "modules"))),
		os.WriteFile(filepath.Join(s.dir, "run"), []byte(run), 0o600),
		copyFile(filepath.Join("testdata", "vm", "init"), filepath.Join(dir, "init"), 0o755),
		command(ctx, "sh", "-ec", `cd "$1"; (cat "$2/root.zst"; find . -print0 | cpio --quiet --null -o -H newc | zstd -q -1) >"$3"`, "sh", dir, system, initrd),
	)
}
