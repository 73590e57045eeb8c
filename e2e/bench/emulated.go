package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// emulatedSteps are what a build for another platform runs: programs that start programs, files, and some work.
var emulatedSteps = []string{
	"echo one > /one", "cat /one > /two", "mkdir -p /a/b/c", "touch /a/b/c/d", "cp /bin/toolbox /copy", "sha256sum /copy > /sum",
	"sh -c 'sh -c \"echo nested > /nested\"'", "for i in 1 2 3 4; do echo $i; done > /four", "seq 20000 | sort > /sorted",
	"ls -l /bin > /listed", "find / > /found; true", "grep toolbox /listed | wc -l > /count", "head -c 20000000 /dev/zero > /zeros",
	"sha256sum /zeros /copy >> /sum", "cd / && tar -cf all.tar bin", "rm /all.tar /zeros", "id > /id", "stat -c %a /one > /mode",
	"chmod 600 /one", "env | sort > /env",
}

// emulated builds for arm64 by an emulator that wherry registers for the steps, and by one that the machine has
// registered. Both run in a user namespace that stands for the machine: nothing is registered for this one.
func (b *bench) emulated(ctx context.Context) error {
	const emulator = "qemu-aarch64-static"
	program, _ := exec.LookPath(emulator)
	if program == "" || os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "without emulated builds: they need root, and", emulator)
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	project := filepath.Join(b.dir, "emulated")
	text := "FROM " + b.registry.Addr() + "/toolbox\nRUN " + strings.Join(emulatedSteps, "\nRUN ") + "\n"
	if err := errors.Join(os.Mkdir(project, 0o755), os.WriteFile(filepath.Join(project, "Dockerfile"), []byte(text), 0o600)); err != nil {
		return err
	}
	build := func(name, registered string) contender {
		return contender{name: name, args: []string{
			self, "-machine", registered, b.wherry, "--store", filepath.Join(b.dir, "emulated-store"+registered), "build", "-q", "--no-cache", "--platform", "linux/arm64", "-t", "emulated", project,
		}}
	}
	own, host := build("wherry's own", "-"), build("registered by the machine", program)
	for _, c := range []contender{own, host} { // the base is pulled once
		if _, err := b.time(ctx, c); err != nil {
			return err
		}
	}
	return b.compare(ctx, fmt.Sprintf("%d steps for arm64, emulated", len(emulatedSteps)), own, host)
}

// machineArg0 is os.Args[0] of this program in the user namespace that stands for a machine.
const machineArg0 = "wherry-bench-machine"

// asMachine runs args where nothing is registered, or an emulator for arm64 alone ("-": none).
func asMachine(ctx context.Context, emulator string, args []string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{emulator}, args...)...)
	cmd.Args[0] = machineArg0
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
		Pdeathsig: syscall.SIGKILL,
	}
	return cmd.Run()
}

// beMachine is the other side of asMachine: args are the emulator, and the program to run.
func beMachine(args []string) error {
	const dir = "/proc/sys/fs/binfmt_misc"
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
		return err
	}
	if args[0] != "-" {
		const magic = `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00`
		const mask = `\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`
		line := fmt.Sprintf(":qemu-aarch64:M:0:%s:%s:%s:FC", magic, mask, args[0])
		if err := os.WriteFile(filepath.Join(dir, "register"), []byte(line), 0o600); err != nil {
			return err
		}
	}
	return unix.Exec(args[1], args[1:], os.Environ())
}
