//go:build linux

package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAppArmorProfile(t *testing.T) {
	const (
		enabled  = "sys/module/apparmor/parameters/enabled"
		current  = "proc/self/attr/apparmor/current"
		older    = "proc/self/attr/current"
		profiles = "sys/kernel/security/apparmor/profiles"
	)
	loaded := "/usr/bin/man (enforce)\ncontainers-default-0.50.1 (enforce)\ndocker-default (enforce)\nman_filter (enforce)\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no AppArmor":        {nil, ""},
		"switched off":       {map[string]string{enabled: "N\n", current: "unconfined\n", profiles: loaded}, ""},
		"docker's":           {map[string]string{enabled: "Y\n", current: "unconfined\n", profiles: loaded}, "docker-default"},
		"older kernel":       {map[string]string{enabled: "Y\n", older: "unconfined\n\x00", profiles: loaded}, "docker-default"},
		"podman's":           {map[string]string{enabled: "Y\n", current: "unconfined\n", profiles: "containers-default-0.50.1 (enforce)\n"}, "containers-default-0.50.1"},
		"another's":          {map[string]string{enabled: "Y\n", current: "unconfined\n", profiles: "docker-default-of-mine (enforce)\n"}, ""},
		"not loaded":         {map[string]string{enabled: "Y\n", current: "unconfined\n", profiles: ""}, ""},
		"not to be seen":     {map[string]string{enabled: "Y\n", current: "unconfined\n"}, ""},
		"in a container":     {map[string]string{enabled: "Y\n", current: "docker-default (enforce)\n", profiles: loaded}, ""},
		"other module first": {map[string]string{enabled: "Y\n", current: "docker-default (enforce)\n", older: "unconfined\n", profiles: loaded}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := appArmorProfile(root); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestConfineByAppArmor names a profile that no kernel has: what refuses it is told with its name.
func TestConfineByAppArmor(t *testing.T) {
	if err := confine(&plan{}); err != nil {
		t.Error(err)
	}
	const none = "wherry-has-no-such-profile"
	if err := confine(&plan{AppArmor: none}); err == nil || !strings.Contains(err.Error(), `AppArmor profile "`+none+`"`) {
		t.Errorf("a profile that is not there: %v", err)
	}
}
