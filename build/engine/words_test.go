//go:build linux

package engine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWithoutCredentials(t *testing.T) {
	for text, want := range map[string]string{
		"nothing to hide: a@b":                                 "nothing to hide: a@b",
		"load git source https://me:pw@host/x.git#main":        "load git source https://xxxxx@host/x.git#main",
		"ADD https://token@host/x /y":                          "ADD https://xxxxx@host/x /y",
		"https://p@ss:w@rd@host/x, then ssh://git@host/x":      "https://xxxxx@host/x, then ssh://xxxxx@host/x",
		`RUN curl "http://u:p@h/" && mail a@b`:                 `RUN curl "http://xxxxx@h/" && mail a@b`,
		"https://host/a@b and https://host:80/?to=me@there":    "https://host/a@b and https://host:80/?to=me@there",
		"docker.io/library/alpine@sha256:0123 of oci://h/i@s1": "docker.io/library/alpine@sha256:0123 of oci://h/i@s1",
	} {
		if got := WithoutCredentials(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestKillCounter reads what the kernel writes in both versions of cgroups, and in vmstat.
func TestKillCounter(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want uint64
	}{
		"version 1": {"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3},
		"version 2": {"low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 7\n", 1},
		"vmstat":    {"nr_free_pages 1\noom_kill 42\n", 42},
		"none":      {"low 0\n", 0},
	} {
		file := filepath.Join(t.TempDir(), "counter")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (counter{path: file}).read(); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}
