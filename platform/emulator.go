package platform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// binfmtDir is where Linux keeps which program runs which kind of file.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// emulatorNames are what QEMU calls the architectures that images name otherwise.
func emulatorNames() map[string]string {
	return map[string]string{
		"386": "i386", "amd64": "x86_64", "arm": "arm", "arm64": "aarch64", "loong64": "loongarch64", "mips64": "mips64",
		"mips64le": "mips64el", "ppc64": "ppc64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x",
	}
}

// FindEmulator returns the program that runs files of an architecture (GOARCH) in user
// mode, and whether the kernel is told to: "" if there is none. Programs are QEMU's, as
// distributions and BuildKit name them.
func FindEmulator(arch string) (path string, registered bool) {
	name, known := emulatorNames()[arch]
	if !known {
		return "", false
	}
	if path = registeredEmulator(binfmtDir, name); path != "" {
		return path, true
	}
	for _, program := range []string{"qemu-" + name + "-static", "qemu-" + name, "buildkit-qemu-" + name} {
		if path, err := exec.LookPath(program); err == nil {
			return path, false
		}
	}
	return "", false
}

// registeredEmulator reads what is registered (Documentation/admin-guide/binfmt-misc.rst).
func registeredEmulator(dir, name string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasPrefix(string(text), "enabled\n") {
			continue
		}
		_, after, _ := strings.Cut(string(text), "\ninterpreter ")
		path, _, _ := strings.Cut(after, "\n")
		program := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "buildkit-"), "-static")
		if program == "qemu-"+name {
			return path
		}
	}
	return ""
}
