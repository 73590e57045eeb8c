package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// completionStore has the names given, all of an image that is not there: to
// complete a name nothing but index.json is read.
func completionStore(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	var entries []string
	for i, name := range names {
		entries = append(entries, fmt.Sprintf(
			`{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:%02d%062d","annotations":{"io.containerd.image.name":%q}}`, 20+i, 0, name))
	}
	for file, text := range map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// In a line the cursor stands at its end; "|" is a line break of what is printed.
func TestComplete(t *testing.T) {
	dir := completionStore(t, "docker.io/library/alpine:3.20", "localhost:5000/app:1", "localhost:5000/app:2", "docker.io/library/$(reboot):1", "")
	for line, want := range map[string]string{
		"wherry pul":                                  "|pull",
		"wherry image l":                              "|load|ls",
		"wherry --store /x image l":                   "|load|ls",
		"wherry hel":                                  "|help",
		"wherry help hist":                            "|history",
		"wherry __comp":                               "",
		"wherry nonsense al":                          "",
		"wherry rmi ":                                 "|alpine:3.20|localhost:5000/app:1|localhost:5000/app:2",
		"wherry rmi lo":                               "|localhost:5000/app:1|localhost:5000/app:2",
		"wherry rmi localhost:50":                     "|5000/app:1|5000/app:2",
		"wherry rmi localhost:5000/app:":              "|1|2",
		`wherry rmi "localhost:50`:                    "|localhost:5000/app:1|localhost:5000/app:2",
		`wherry rmi local\host:50`:                    "|5000/app:1|5000/app:2",
		"wherry rmi localhost:5000/app:1 lo":          "|localhost:5000/app:2",
		"wherry rmi -f al":                            "|alpine:3.20",
		"wherry image rm al":                          "|alpine:3.20",
		"wherry rmi docker.io/":                       "|docker.io/library/alpine:3.20",
		"wherry rmi 24":                               "|240000000000", // no name begins so: the nameless has its ID
		"wherry tag alpine:3.20 al":                   "|alpine:3.20",
		"wherry tags local":                           "|localhost:5000/app",
		"wherry tag a b al":                           "",
		"wherry images --filter ":                     "nospace|dangling=|label=|before=|since=|until=|reference=",
		"wherry images -f dangling=":                  "|true|false",
		"wherry images --filter=since=al":             "|alpine:3.20",
		"wherry images --format ":                     "|table|json",
		"wherry images --format=j":                    "|json",
		"wherry images --di":                          "|--digests",
		"wherry images --digests --di":                "",
		"wherry images -q":                            "|-q",
		"wherry pull --platform linux/arm":            "|linux/arm/v5|linux/arm/v6|linux/arm/v7|linux/arm64",
		"wherry pull --platform a":                    "|all",
		"wherry load --platform linux/amd64,linux/s3": "|linux/amd64,linux/s390x",
		"wherry load -i ":                             "files",
		"wherry load --input=x":                       "files",
		"wherry save -o x al":                         "|alpine:3.20",
		"wherry --store ":                             "folders",
		"wherry completion ":                          "|bash|zsh|fish",
		"wherry logout ":                              "|docker.io|localhost:5000",
		"wherry login -u ":                            "",
		"wherry rmi -- -":                             "",
		"wherry tag --help x":                         "",
		"wherry version x":                            "",
	} {
		e, stdout, stderr := testEnv(t)
		e.Getenv = func(name string) string {
			return map[string]string{"WHERRY_STORE": dir, "DOCKER_CONFIG": filepath.Join(dir, "none")}[name]
		}
		code := run(context.Background(), e, []string{"wherry", "__complete", "bash", line, " \"'@><=;|&(:"})
		if got := strings.ReplaceAll(strings.TrimSuffix(stdout.String(), "\n"), "\n", "|"); got != want || code != exitDone || stderr.Len() > 0 {
			t.Errorf("%q: got %q (exit code %d, %s), want %q", line, got, code, stderr, want)
		}
	}
}

// zsh and fish get descriptions, each in its own way, and whole words.
func TestCompleteWithDescriptions(t *testing.T) {
	dir := completionStore(t, "localhost:5000/app:1")
	for shell, want := range map[string]string{
		"zsh":  "\n" + `localhost\:5000/app\:1:200000000000` + "\n",
		"fish": "\nlocalhost:5000/app:1\t200000000000\n",
	} {
		e, stdout, _ := testEnv(t)
		run(context.Background(), e, []string{"wherry", "__complete", shell, "--store", dir, "rmi", "localhost:"})
		if stdout.String() != want {
			t.Errorf("%s: got %q, want %q", shell, stdout, want)
		}
	}
}

// Who presses Tab has not made a store, and is told of no error.
func TestCompleteChangesNothing(t *testing.T) {
	for _, line := range []string{"wherry rmi ", "wherry rmi --no-such ", "wherry logout ", "wherry", ""} {
		e, _, stderr := testEnv(t)
		code := run(context.Background(), e, []string{"wherry", "__complete", "bash", line, ":"})
		dir, err := e.storeDir()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err == nil || code != exitDone || stderr.Len() > 0 {
			t.Errorf("%q: store %v, exit code %d, stderr %q", line, err, code, stderr)
		}
	}
}
