package platform

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestRegisteredEmulator(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"register":     "",
		"status":       "enabled\n",
		"qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: F\noffset 0\n",
		"qemu-arm":     "disabled\ninterpreter /usr/bin/qemu-arm-static\nflags: F\n",
		"qemu-s390x":   "enabled\ninterpreter /usr/libexec/qemu-binfmt/s390x-binfmt-P\nflags: POF\n",
		"python":       "enabled\ninterpreter /usr/bin/python3\nflags: \n",
		"buildkit":     "enabled\ninterpreter /usr/bin/buildkit-qemu-riscv64\nflags: F\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"aarch64": "/usr/bin/qemu-aarch64-static", "riscv64": "/usr/bin/buildkit-qemu-riscv64", "arm": "", "aarch": "",
		"s390x": "/usr/libexec/qemu-binfmt/s390x-binfmt-P", "": "",
	} {
		if got := registeredEmulator(dir, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := registeredEmulator(filepath.Join(dir, "nothing"), "arm"); got != "" {
		t.Errorf("without the file system: %q", got)
	}
}

// header is the first part of a program: what is common to all machines of this kind.
func header(t *testing.T, class elf.Class, order binary.ByteOrder, machine elf.Machine, kind elf.Type, abi byte) []byte {
	t.Helper()
	data := elf.ELFDATA2LSB
	if order == binary.ByteOrder(binary.BigEndian) {
		data = elf.ELFDATA2MSB
	}
	h := []byte{0x7f, 'E', 'L', 'F', byte(class), byte(data), 1, abi, 0, 0, 0, 0, 0, 0, 0, 0}
	h = append(h, make([]byte, 8)...)
	order.PutUint16(h[16:], uint16(kind))
	order.PutUint16(h[18:], uint16(machine))
	order.PutUint32(h[20:], 1)
	return h
}

// TestForeigns compares what programs are recognised by with what the ELF specification calls the machines.
func TestForeigns(t *testing.T) {
	little, big := binary.ByteOrder(binary.LittleEndian), binary.ByteOrder(binary.BigEndian)
	machines := map[string]struct {
		class   elf.Class
		order   binary.ByteOrder
		machine elf.Machine
	}{
		"386": {elf.ELFCLASS32, little, elf.EM_386}, "amd64": {elf.ELFCLASS64, little, elf.EM_X86_64},
		"arm": {elf.ELFCLASS32, little, elf.EM_ARM}, "arm64": {elf.ELFCLASS64, little, elf.EM_AARCH64},
		"loong64": {elf.ELFCLASS64, little, elf.EM_LOONGARCH}, "riscv64": {elf.ELFCLASS64, little, elf.EM_RISCV},
		"mips64": {elf.ELFCLASS64, big, elf.EM_MIPS}, "mips64le": {elf.ELFCLASS64, little, elf.EM_MIPS},
		"ppc64": {elf.ELFCLASS64, big, elf.EM_PPC64}, "ppc64le": {elf.ELFCLASS64, little, elf.EM_PPC64},
		"s390x": {elf.ELFCLASS64, big, elf.EM_S390},
	}
	for arch := range foreigns() {
		if _, ok := machines[arch]; !ok {
			t.Errorf("nothing is known of %s", arch)
		}
	}
	for arch, m := range machines {
		for _, kind := range []elf.Type{elf.ET_EXEC, elf.ET_DYN} {
			for _, abi := range []byte{0, 3} { // System V, GNU
				h := header(t, m.class, m.order, m.machine, kind, abi)
				for other := range foreigns() {
					if got, want := recognised(other, h), other == arch; got != want {
						t.Errorf("a program of %s (%v, ABI %d) is taken for one of %s: %v", arch, kind, abi, other, got)
					}
				}
			}
		}
		if recognised(arch, header(t, m.class, m.order, m.machine, elf.ET_REL, 0)) {
			t.Errorf("%s: an object file is taken for a program", arch)
		}
	}
}

// recognised does what the kernel does.
func recognised(arch string, h []byte) bool {
	f := foreigns()[arch]
	for i := range f.magic {
		if (h[i]^f.magic[i])&f.mask[i] != 0 {
			return false
		}
	}
	return len(f.magic) == len(f.mask)
}

func TestRegistration(t *testing.T) {
	for _, arch := range Emulated() {
		line := Registration(arch, "/usr/bin/qemu", "FC")
		if fields := strings.Split(line, ":"); len(fields) != 8 || fields[6] != "/usr/bin/qemu" || fields[7] != "FC" || strings.ContainsAny(line, "\x00\n") {
			t.Errorf("%s: %q", arch, line)
		}
	}
	if line := Registration("arm64", "/a:b/qemu", "F"); !strings.HasPrefix(line, "|qemu-aarch64|M|0|\\x7f\\x45") || !strings.HasSuffix(line, "|/a:b/qemu|F") {
		t.Errorf("a path with a colon: %q", line)
	}
	for arch, path := range map[string]string{"wasm": "/x", "arm": "/" + strings.Repeat("x", 2000), "arm64": "/:|,;"} {
		if line := Registration(arch, path, "F"); line != "" {
			t.Errorf("%s: %q", arch, line)
		}
	}
}

// program writes a program that is linked statically, or names a loader.
func program(t *testing.T, path, arch string, dynamic bool) {
	t.Helper()
	f := foreigns()[arch]
	if f.magic == "" || f.magic[4] != 2 || f.magic[5] != 1 {
		t.Skip("for 64-bit machines whose first byte is the lowest")
	}
	h := make([]byte, 64+56)
	copy(h, f.magic)
	binary.LittleEndian.PutUint64(h[32:], 64)
	binary.LittleEndian.PutUint16(h[54:], 56)
	binary.LittleEndian.PutUint16(h[56:], 1)
	binary.LittleEndian.PutUint32(h[64:], uint32(elf.PT_LOAD))
	if dynamic {
		binary.LittleEndian.PutUint32(h[64:], uint32(elf.PT_INTERP))
	}
	if err := os.WriteFile(path, h, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}

func TestFindEmulator(t *testing.T) {
	given, inPath := t.TempDir(), t.TempDir()
	t.Setenv("PATH", inPath)
	find := func(dirs ...string) string {
		path, err := FindEmulator("s390x", dirs...)
		if _, ok := errors.AsType[*NoEmulatorError](err); err != nil && !ok {
			t.Fatalf("%T: %v", err, err)
		}
		if err != nil {
			return err.Error()
		}
		return path
	}
	if got := find(); got != "no qemu-s390x-static was found" {
		t.Error(got)
	}
	program(t, filepath.Join(inPath, "qemu-s390x"), runtime.GOARCH, true)
	if got := find(); !strings.HasSuffix(got, "/qemu-s390x is linked dynamically: in a step it would lack its libraries") {
		t.Error(got)
	}
	program(t, filepath.Join(inPath, "buildkit-qemu-s390x"), runtime.GOARCH, false)
	if got := find(); got != filepath.Join(inPath, "buildkit-qemu-s390x") {
		t.Error(got)
	}
	program(t, filepath.Join(inPath, "qemu-s390x-static"), runtime.GOARCH, false)
	if got := find(given); got != filepath.Join(inPath, "qemu-s390x-static") {
		t.Error(got)
	}
	other := "riscv64"
	if runtime.GOARCH == other {
		other = "arm64"
	}
	program(t, filepath.Join(given, "qemu-s390x-static"), other, false)
	if got := find(given); got != filepath.Join(inPath, "qemu-s390x-static") {
		t.Errorf("one for another machine was not passed by: %s", got)
	}
	program(t, filepath.Join(given, "qemu-s390x"), runtime.GOARCH, false)
	if got := find(given); got != filepath.Join(given, "qemu-s390x") {
		t.Errorf("the folder that was given does not come first: %s", got)
	}
	if _, err := FindEmulator("wasm"); err == nil || err.Error() != "there is no emulator for wasm" {
		t.Error(err)
	}
}

// FuzzProgramOf holds that no file makes the reader of programs fail otherwise than by an error.
func FuzzProgramOf(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Add(bytes.Repeat([]byte{0xff}, 200))
	f.Add(append([]byte(foreigns()["amd64"].magic), bytes.Repeat([]byte{1}, 100)...))
	f.Add(append([]byte(foreigns()["s390x"].magic), bytes.Repeat([]byte{0xfe}, 100)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if machine, _, err := programOf(bytes.NewReader(data)); err == nil && len(machine) != 2 {
			t.Errorf("machine %x", machine)
		}
	})
}
