package platform

import (
	"slices"
	"strings"
)

// known are the systems and architectures that images are made for: those of
// docker's "manifest annotate", and what Go has learnt to build for since.
func known() map[string]string {
	return map[string]string{
		"aix":       "ppc64",
		"android":   "386 amd64 arm arm64",
		"darwin":    "386 amd64 arm arm64",
		"dragonfly": "amd64",
		"freebsd":   "386 amd64 arm arm64 riscv64",
		"illumos":   "amd64",
		"ios":       "amd64 arm64",
		"js":        "wasm",
		"linux":     "386 amd64 arm arm64 loong64 mips mipsle mips64 mips64le ppc64 ppc64le riscv64 s390x",
		"netbsd":    "386 amd64 arm arm64",
		"openbsd":   "386 amd64 arm arm64 ppc64 riscv64",
		"plan9":     "386 amd64 arm",
		"solaris":   "amd64",
		"wasi":      "wasm wasm32",
		"wasip1":    "wasm",
		"windows":   "386 amd64 arm arm64",
	}
}

// IsKnown reports whether there are machines with this operating system and
// architecture, spelled as images spell them (GOOS and GOARCH): "linux" and
// "amd64", not "x86_64".
func IsKnown(os, arch string) bool {
	return slices.Contains(strings.Fields(known()[os]), arch)
}
