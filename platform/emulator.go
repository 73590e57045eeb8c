package platform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// binfmtDir is where Linux keeps which program runs which kind of file.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// foreign is how the files of an architecture are recognised, and what QEMU calls it. A zero in the mask is a
// byte that does not count. They are those of QEMU's scripts/qemu-binfmt-conf.sh: the fields of an ELF header up to
// its version, where the kind of system (EI_OSABI) and that a program may be position independent make no difference.
type foreign struct{ name, magic, mask string }

const (
	elf32, elf32be = "\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00", "\x7fELF\x01\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
	elf64, elf64be = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00", "\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"

	anyLE, anyBE   = "\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff"
	intel          = "\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
	powerLE, power = "\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\x00", "\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff"
	mipsLE, mipsBE = "\xff\xff\xff\xff\xff\xff\xff\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff"
	loong          = "\xff\xff\xff\xff\xff\xff\xff\xfc\x00\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)

// foreigns are the architectures (GOARCH) that there are emulators for.
func foreigns() map[string]foreign {
	return map[string]foreign{
		"386":      {"i386", elf32 + "\x03\x00", intel},
		"amd64":    {"x86_64", elf64 + "\x3e\x00", intel},
		"arm":      {"arm", elf32 + "\x28\x00", anyLE},
		"arm64":    {"aarch64", elf64 + "\xb7\x00", anyLE},
		"loong64":  {"loongarch64", elf64 + "\x02\x01", loong},
		"mips64":   {"mips64", elf64be + "\x00\x08", mipsBE},
		"mips64le": {"mips64el", elf64 + "\x08\x00", mipsLE},
		"ppc64":    {"ppc64", elf64be + "\x00\x15", power},
		"ppc64le":  {"ppc64le", elf64 + "\x15\x00", powerLE},
		"riscv64":  {"riscv64", elf64 + "\xf3\x00", anyLE},
		"s390x":    {"s390x", elf64be + "\x00\x16", power},
	}
}

// NoEmulatorError says that no program was found that runs files of an architecture, or why those that were can't be
// used in a step.
type NoEmulatorError struct {
	Arch   string // GOARCH
	Name   string // what QEMU calls it; "" if it knows none such
	Path   string // of the first one that was found; "" if there is none
	Reason string // why it can't be used
}

func (e *NoEmulatorError) Error() string {
	switch {
	case e.Path != "":
		return fmt.Sprintf("%s %s", e.Path, e.Reason)
	case e.Name == "":
		return "there is no emulator for " + e.Arch
	}
	return fmt.Sprintf("no qemu-%s-static was found", e.Name)
}

// FindEmulator returns the program that runs files of an architecture (GOARCH) in user mode: the first in these folders,
// then in those of PATH, that a step could use, named as distributions and BuildKit do: qemu-ARCH-static, qemu-ARCH,
// buildkit-qemu-ARCH. It has to be linked statically, since it is run in the root file system of a step, where its
// libraries are not. The path is absolute.
//
// The error is a [*NoEmulatorError].
func FindEmulator(arch string, dirs ...string) (path string, err error) {
	qemu, known := foreigns()[arch]
	if !known {
		return "", &NoEmulatorError{Arch: arch}
	}
	none := &NoEmulatorError{Arch: arch, Name: qemu.name}
	path = os.Getenv("PATH") //nolint:forbidigo // as exec.LookPath does, which stops at the first one
	for _, dir := range append(slices.Clone(dirs), filepath.SplitList(path)...) {
		for _, program := range []string{"qemu-" + qemu.name + "-static", "qemu-" + qemu.name, "buildkit-qemu-" + qemu.name} {
			if path, err = filepath.Abs(filepath.Join(dir, program)); err != nil || dir == "" {
				continue
			}
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
				continue
			}
			reason := unusable(path)
			if reason == "" {
				return path, nil
			}
			if none.Path == "" {
				none.Path, none.Reason = path, reason
			}
		}
	}
	return "", none
}

// unusable is why a program can't be run in the root file system of another; "" if it can.
func unusable(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "can't be read"
	}
	defer f.Close()
	machine, dynamic, err := programOf(f)
	switch own := foreigns()[runtime.GOARCH].magic; {
	case err != nil:
		return "is no program of " + runtime.GOARCH
	case own != "" && string(machine) != own[18:20]:
		return "is a program of another architecture than " + runtime.GOARCH
	case dynamic:
		return "is linked dynamically: in a step it would lack its libraries"
	}
	return ""
}

// maxSegments bounds how many segments of a program are looked at.
const maxSegments = 64

// programOf reads which machine an ELF program is for, in the bytes of its header, and whether it names a dynamic loader
// (elf(5)).
func programOf(r io.ReaderAt) (machine []byte, dynamic bool, err error) {
	h := make([]byte, 64)
	if _, err := r.ReadAt(h, 0); err != nil {
		return nil, false, err
	}
	if string(h[:4]) != "\x7fELF" {
		return nil, false, errors.New("no ELF file")
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if h[5] == 2 {
		order = binary.BigEndian
	}
	at, size, count := int64(order.Uint64(h[32:])), order.Uint16(h[54:]), order.Uint16(h[56:]) //nolint:gosec // a wrong offset can't be read
	if h[4] == 1 {                                                                             // 32 bits
		at, size, count = int64(order.Uint32(h[28:])), order.Uint16(h[42:]), order.Uint16(h[44:])
	}
	const loader = 3 // PT_INTERP
	for i := range min(int64(count), maxSegments) {
		kind := make([]byte, 4)
		if _, err := r.ReadAt(kind, at+i*int64(size)); err != nil {
			return nil, false, err
		}
		dynamic = dynamic || order.Uint32(kind) == loader
	}
	return h[18:20], dynamic, nil
}

// maxRegistration is how long a line the kernel takes, in bytes.
const maxRegistration = 1920

// Registration is the line that has Linux run files of an architecture (GOARCH) by a program, as binfmt_misc wants it;
// flags are those of Documentation/admin-guide/binfmt-misc.rst. It is "" for an architecture that no emulator is
// known for, and for a path that can't be written so.
func Registration(arch, path, flags string) string {
	qemu, known := foreigns()[arch]
	if !known {
		return ""
	}
	for _, separator := range []string{":", "|", ",", ";"} { // any will do that is in no field
		fields := []string{"", "qemu-" + qemu.name, "M", "0", escaped(qemu.magic), escaped(qemu.mask), path, flags}
		if line := strings.Join(fields, separator); !strings.Contains(path, separator) && len(line) <= maxRegistration {
			return line
		}
	}
	return ""
}

// escaped writes every byte so that none is taken for a separator or for the end of the line.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\x%02x`, s[i])
	}
	return b.String()
}

// Emulated are the architectures (GOARCH), in order, that [FindEmulator] looks for programs of.
func Emulated() []string { return slices.Sorted(maps.Keys(foreigns())) }

// RegisteredEmulator is the program that this machine's kernel, as this process sees it, runs files of an architecture
// (GOARCH) by; "" if there is none, or if what is registered is not mounted where it can be read.
func RegisteredEmulator(arch string) string {
	return registeredEmulator(binfmtDir, foreigns()[arch].name)
}

// registeredEmulator reads what is registered (Documentation/admin-guide/binfmt-misc.rst).
func registeredEmulator(dir, name string) string {
	entries, err := os.ReadDir(dir)
	if err != nil || name == "" {
		return ""
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(string(text), "enabled\n") {
			continue
		}
		_, after, _ := strings.Cut(string(text), "\ninterpreter ")
		path, _, _ := strings.Cut(after, "\n")
		program := strings.TrimPrefix(filepath.Base(path), "buildkit-")
		for _, suffix := range []string{"-static", "-binfmt-P", "-binfmt"} {
			program = strings.TrimSuffix(program, suffix)
		}
		if program == "qemu-"+name || program == name && strings.HasSuffix(filepath.Base(path), "-binfmt-P") {
			return path
		}
	}
	return ""
}
