//go:build linux

package main

import (
	"context"
	"os"
	"strings"
	"testing"
)

// A bake's operands are the targets of the files that the line names so far. Standard
// input is not read for them, and nothing is fetched.
func TestCompleteBake(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"docker-bake.hcl": `
variable "TAG" { default = "1" }
variable "NEED" {}
group "default" { targets = ["app", "web"] }
target "app" { colour = "odd" }
target "web" { description = "The web" }
target "_own" {}
`,
		"other.json": `{"target": {"other": {}}}`,
		"broken.hcl": `target "`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"wherry bake ":                      "|app|default|web",
		"wherry buildx bake app w":          "|web",
		"wherry bake app a":                 "",
		"wherry bake -f other.json ":        "|other",
		"wherry bake -f broken.hcl ":        "",
		"wherry bake -f none.hcl ":          "",
		"wherry bake -f - ":                 "",
		"wherry bake https://host/r.git ":   "",
		"wherry bake -f ":                   "files",
		"wherry bake --set ":                "nospace|app.|default.|web.",
		"wherry bake --set=we":              "nospace|web.",
		"wherry bake --var T":               "nospace|TAG=",
		"wherry bake --list ":               "|targets|variables",
		"wherry bake --progress pl":         "|plain",
		"wherry bake --metadata-file ":      "files",
		"wherry bake --no-cache --no-cache": "",
	} {
		e, stdout, stderr := testEnv(t)
		code := run(context.Background(), e, []string{"wherry", "__complete", "bash", line, " \"'@><=;|&(:"})
		if got := strings.ReplaceAll(strings.TrimSuffix(stdout.String(), "\n"), "\n", "|"); got != want || code != exitDone || stderr.Len() > 0 {
			t.Errorf("%q: got %q (exit code %d, %s), want %q", line, got, code, stderr, want)
		}
	}
}
