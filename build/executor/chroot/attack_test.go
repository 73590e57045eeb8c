package chroot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	bkexecutor "github.com/moby/buildkit/executor"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"golang.org/x/sys/unix"
)

// victim starts a process outside that a step would like to reach, and returns a check that nothing has happened to it.
func victim(t *testing.T, word string, uid uint32) (pid int, unharmed func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.Env = append(os.Environ(), "WORD="+word)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid = cmd.Process.Pid
	looks := func() string {
		var limit unix.Rlimit
		var set unix.CPUSet
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil && uid == 0 {
			t.Error(err)
		}
		prio, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
		if err != nil {
			t.Error(err)
		}
		if err := unix.SchedGetaffinity(pid, &set); err != nil {
			t.Error(err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Error(err)
		}
		var lines []string
		for line := range strings.SplitSeq(string(status), "\n") {
			if strings.HasPrefix(line, "State:\tZ") {
				t.Errorf("process %d is dead", pid)
			}
			for _, name := range []string{"TracerPid", "SigPnd", "ShdPnd"} {
				if strings.HasPrefix(line, name+":") {
					lines = append(lines, line)
				}
			}
		}
		return fmt.Sprint(limit, prio, set.Count(), lines)
	}
	before := looks()
	return pid, func() {
		t.Helper()
		if after := looks(); after != before || unix.Kill(pid, 0) != nil {
			t.Errorf("process %d is %s, was %s", pid, after, before)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// TestAttack runs a program that tries every way out that is known, as root in a step.
func TestAttack(t *testing.T) {
	b := newBench(t)
	const word = "canary-7f3a91"
	t.Setenv("WORD", word)
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte(word), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"@" + word, filepath.Join(filepath.Dir(canary), "socket")} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	inherited, err := syscall.Open(filepath.Dir(canary), syscall.O_RDONLY|syscall.O_DIRECTORY, 0) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(inherited) })
	engine, engineUnharmed := victim(t, word, 0)
	other, otherUnharmed := victim(t, word, 1000)
	want := "attacked, 0 reached"
	if env(innerVar) == "nolandlock" { // nothing else knows of names in memory
		want = "REACHED abstract socket\nattacked, 1 reached"
	}
	if got := b.play(fmt.Sprintf("attack %s %s %d %d %d", canary, word, engine, other, os.Getpid())); got != want {
		t.Error(got)
	}
	engineUnharmed()
	otherUnharmed()
	if content(t, canary) != word {
		t.Error("the canary has changed")
	}
	// A program that is a link to the process that executes it.
	if err := os.Symlink("/proc/self/exe", filepath.Join(b.rootfs, "evil")); err != nil {
		t.Fatal(err)
	}
	if r := b.run(t.Context(), bkexecutor.Meta{Args: []string{"/evil"}}); r.failure == nil {
		t.Errorf("our own binary was executed: %s", r.out)
	}
	for n := range 20 { // CVE-2024-21626
		if r := b.run(t.Context(), bkexecutor.Meta{Args: []string{"/bin/ls"}, Cwd: fmt.Sprintf("/proc/self/fd/%d", n)}); r.failure == nil && strings.Contains(r.out, "canary") {
			t.Errorf("cwd in descriptor %d: %q", n, r.out)
		}
	}
}

// TestOtherABI makes a program of i386 do what is forbidden, by that ABI's numbers.
func TestOtherABI(t *testing.T) {
	b := newBench(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("there is no program of the other ABI for this machine")
	}
	parent := uint32(os.Getpid())
	calls := [][4]uint32{
		{61, elfText, 0, 0},
		{21, elfText, elfText, elfText},
		{26, 16, parent, 0},
		{425, 8, elfText, 0},
		{346, 0, 0, 0},
		{349, parent, parent, 0},
		{310, 0x10000000, 0, 0},
		{357, 0, elfText, 64},
		{37, parent, 0, 0},
		{340, parent, 7, elfText},
		{97, 0, parent, 19},
		{342, 0, elfText, 0},
		{14, elfText, 0o60666, 0x800},
		{217, elfText, elfText, 0},
		{374, 0, 0, 0},
		{434, parent, 0, 0},
	}
	// Without Landlock's scopes a number is looked at by the supervisor; with them the kernel says no to what follows.
	if b.exec.(*chrootExecutor).abi >= landlockScopes {
		calls = calls[:len(calls)-1]
	}
	for i, program := range [][]byte{elf386(calls), elf386([][4]uint32{{20, 0, 0, 0}})} {
		if err := os.WriteFile(filepath.Join(b.rootfs, "i386"), program, 0o755); err != nil {
			t.Fatal(err)
		}
		r := b.run(t.Context(), bkexecutor.Meta{Args: []string{"/i386"}})
		var exit *gatewayapi.ExitError
		if !errors.As(r.failure, &exit) && r.failure != nil {
			t.Skipf("this kernel runs no i386 programs: %v", r.failure)
		}
		code := 0
		if exit != nil {
			code = int(exit.ExitCode)
		}
		if i == 0 && code != 0 {
			t.Errorf("call %d was let through", calls[code-1][0])
		}
		if i == 1 && code != 1 {
			t.Errorf("getpid has failed: %v", r.failure)
		}
	}
}

// elfText is where the text of the program is that elf386 makes: "/".
const elfText = 0x08048000 + 52 + 32

// elf386 is a program that makes calls, and ends with the number (from 1) of the first that succeeds, or 0.
func elf386(calls [][4]uint32) []byte {
	le := binary.LittleEndian
	code := []byte{'/', 0}
	for i, c := range calls {
		for reg, op := range []byte{0xb8, 0xbb, 0xb9, 0xba} { // mov eax, ebx, ecx, edx
			code = le.AppendUint32(append(code, op), c[reg])
		}
		// int 0x80; test eax, eax; js +12; mov ebx, i+1; mov eax, 1; int 0x80
		code = append(code, 0xcd, 0x80, 0x85, 0xc0, 0x78, 12)
		code = append(le.AppendUint32(append(code, 0xbb), uint32(i+1)), 0xb8, 1, 0, 0, 0, 0xcd, 0x80)
	}
	code = append(code, 0xbb, 0, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0x80)
	out := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	for _, half := range []uint16{2, 3} {
		out = le.AppendUint16(out, half)
	}
	for _, word := range []uint32{1, elfText + 2, 52, 0, 0} {
		out = le.AppendUint32(out, word)
	}
	for _, half := range []uint16{52, 32, 1, 0, 0, 0} {
		out = le.AppendUint16(out, half)
	}
	size := uint32(52 + 32 + len(code))
	for _, word := range []uint32{1, 0, 0x08048000, 0x08048000, size, size, 5, 0x1000} {
		out = le.AppendUint32(out, word)
	}
	return append(out, code...)
}
