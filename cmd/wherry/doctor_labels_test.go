//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wherry-oci/wherry/build"
)

func TestLabels(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		build   buildFacts
		modules []string
		label   string
	}{
		"nothing":    {nil, buildFacts{Steps: true}, []string{}, ""},
		"the list":   {map[string]string{"sys/kernel/security/lsm": "capability,landlock,yama"}, buildFacts{Steps: true}, []string{"capability", "landlock", "yama"}, ""},
		"a profile":  {map[string]string{"sys/kernel/security/lsm": "capability,apparmor\n"}, buildFacts{Steps: true, profile: "docker-default"}, []string{"capability", "apparmor"}, `steps have the AppArmor profile "docker-default"`},
		"none of it": {map[string]string{"sys/module/apparmor/parameters/enabled": "Y\n"}, buildFacts{Steps: true}, []string{"apparmor"}, "steps keep the AppArmor profile of wherry itself"},
		"SELinux":    {map[string]string{"sys/fs/selinux/enforce": "1"}, buildFacts{Steps: true}, []string{"selinux"}, "steps keep the SELinux label of wherry itself"},
		"a label":    {nil, buildFacts{Steps: true, label: "container_t"}, []string{}, "steps have the SELinux label container_t"},
		"no label": {
			nil,
			buildFacts{Steps: true, noLabel: &build.NotLabelledError{Own: "user_t", Reason: "the policy has no label for containers"}},
			[]string{},
			"steps keep wherry's own SELinux label, user_t: the policy has no label for containers",
		},
		"no steps": {map[string]string{"sys/fs/selinux/enforce": "1"}, buildFacts{}, []string{"selinux"}, ""},
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
			modules := securityModules(root)
			if !slices.Equal(modules, c.modules) {
				t.Errorf("modules %q, want %q", modules, c.modules)
			}
			if got := labelOf(c.build, modules); got != c.label {
				t.Errorf("got %q, want %q", got, c.label)
			}
		})
	}
}
