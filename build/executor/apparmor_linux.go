package executor

import (
	"os"
	"path/filepath"
	"strings"
)

// AppArmorProfile is the profile that AppArmor confines steps of real root by: that of docker's containers, or else that of
// podman's, if the kernel has it loaded. It is "" where there is none, and where this process is itself confined: then steps
// are as it is, since a profile may only be left for another by a rule of its own.
func AppArmorProfile() string { return appArmorProfile("/") }

// appArmorProfile reads what the kernel tells below root.
func appArmorProfile(root string) string {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "" // no AppArmor, or not for us to see
		}
		return strings.TrimRight(string(text), "\n\x00")
	}
	if read("sys/module/apparmor/parameters/enabled") != "Y" {
		return ""
	}
	if own := read("proc/self/attr/apparmor/current"); own != "unconfined" && (own != "" || read("proc/self/attr/current") != "unconfined") {
		return ""
	}
	podmans := ""
	for line := range strings.Lines(read("sys/kernel/security/apparmor/profiles")) {
		name, _, _ := strings.Cut(line, " (")
		switch {
		case name == "docker-default":
			return name
		case strings.HasPrefix(name, "containers-default-"):
			podmans = name
		}
	}
	return podmans
}
