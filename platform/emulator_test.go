package platform

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRegisteredEmulator(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"register":     "",
		"status":       "enabled\n",
		"qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: F\noffset 0\n",
		"qemu-arm":     "disabled\ninterpreter /usr/bin/qemu-arm-static\nflags: F\n",
		"python":       "enabled\ninterpreter /usr/bin/python3\nflags: \n",
		"buildkit":     "enabled\ninterpreter /usr/bin/buildkit-qemu-riscv64\nflags: F\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"aarch64": "/usr/bin/qemu-aarch64-static", "riscv64": "/usr/bin/buildkit-qemu-riscv64", "arm": "", "aarch": "",
	} {
		if got := registeredEmulator(dir, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := registeredEmulator(filepath.Join(dir, "nothing"), "arm"); got != "" {
		t.Errorf("without the file system: %q", got)
	}
}
