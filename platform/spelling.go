package platform

import (
	"regexp"
	"slices"
	"strings"
)

// spellings are the names of architectures that uname -m and Debian have where the image
// specification has another, beyond those that containerd knows.
func spellings() map[string]string {
	return map[string]string{
		"i486": "386", "i586": "386", "i686": "386", "x86": "386",
		"arm32v5": "arm/v5", "arm32v6": "arm/v6", "arm32v7": "arm/v7", "arm64v8": "arm64/v8", // Docker Hub's
		"loongarch64": "loong64", "mips64el": "mips64le", "mipsel": "mipsle", "powerpc64le": "ppc64le", "ppc64el": "ppc64le",
	}
}

var (
	unameArm   = regexp.MustCompile(`^armv([5-8])[a-z]*$`)           // armv7l, armv6hl, armv5tel
	psABILevel = regexp.MustCompile(`^x86[_-]64[_-](v[1-9][0-9]*)$`) // x86-64-v3
)

// spelled is an architecture as the image specification spells it, with the variant that
// its name says, if none is given.
func spelled(arch, variant string) (string, string) {
	name := strings.ToLower(arch)
	if m := unameArm.FindStringSubmatch(name); m != nil {
		name = "arm/v" + m[1]
	} else if m := psABILevel.FindStringSubmatch(name); m != nil {
		name = "amd64/" + m[1]
	} else if known, ok := spellings()[name]; ok {
		name = known
	} else {
		return arch, variant
	}
	name, said, _ := strings.Cut(name, "/")
	if variant == "" {
		variant = said
	}
	return name, variant
}

// isArchitecture reports whether a word is one, as containerd or we know them.
func isArchitecture(s string) bool {
	s = strings.ToLower(s)
	if slices.Contains([]string{"aarch64", "armel", "armhf", "i386", "x86-64", "x86_64"}, s) {
		return true
	}
	for _, list := range known() {
		if slices.Contains(strings.Fields(list), s) {
			return true
		}
	}
	return false
}
