package registry

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// user that c finds for a repository of a host: "name:password", "token:…" or "".
func user(t *testing.T, c *Credentials, host, repo string) string {
	t.Helper()
	found, err := c.Resolve(resource{host, repo})
	if err != nil {
		t.Fatalf("resolving %s: %v", host, err)
	}
	a, err := found.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case a.IdentityToken != "":
		return "token:" + a.IdentityToken
	case a.Username == "":
		return ""
	}
	return a.Username + ":" + a.Password
}

func TestResolveCredentials(t *testing.T) {
	dir := t.TempDir()
	auth := func(s string) string {
		return `{"auth":"` + newStoredLogin(authn.AuthConfig{Username: s, Password: "pw"}).Auth + `"}`
	}
	writeFile(t, filepath.Join(dir, "config.json"), `{"auths":{
		"https://index.docker.io/v1/": `+auth("hub")+`,
		"https://old.corp/v1/": `+auth("old")+`,
		"registry.corp:5000": `+auth("port")+`,
		"both.corp": `+auth("docker")+`,
		"acr.corp": {"auth":"MDAwMDo=","identitytoken":"refresh"}
	}}`, 0o600)
	podman := filepath.Join(dir, "auth.json")
	writeFile(t, podman, `{"auths":{
		"docker.io": `+auth("podmanhub")+`, "both.corp": `+auth("podman")+`,
		"quay.corp": `+auth("all")+`, "quay.corp/org": `+auth("org")+`, "quay.corp/org/deep/app": `+auth("app")+`
	}}`, 0o600)
	c, err := LoadCredentials(dir, filepath.Join(dir, "absent.json"), podman)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ host, repo, want string }{
		{"docker.io", "library/alpine", "hub:pw"},
		{"index.docker.io", "library/alpine", "hub:pw"},
		{"old.corp", "x", "old:pw"},
		{"registry.corp:5000", "x", "port:pw"},
		{"registry.corp", "x", ""},
		{"both.corp", "x", "docker:pw"},
		{"acr.corp", "x", "token:refresh"},
		{"quay.corp", "other/x", "all:pw"},
		{"quay.corp", "org/x", "org:pw"},
		{"quay.corp", "organ/x", "all:pw"},
		{"quay.corp", "org/deep/app", "app:pw"},
	} {
		if got := user(t, c, test.host, test.repo); got != test.want {
			t.Errorf("%s/%s: got %q, want %q", test.host, test.repo, got, test.want)
		}
	}
	if err := c.Override([]byte(`{"auths":{"both.corp":` + auth("ci") + `}}`)); err != nil {
		t.Fatal(err)
	}
	if got := user(t, c, "both.corp", "x"); got != "ci:pw" {
		t.Errorf("given credentials: got %q", got)
	}
}

func TestStoreCredentials(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", ".docker")
	c, err := LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("loading created the folder")
	}
	if found, err := c.Erase(t.Context(), "registry.corp"); err != nil || found {
		t.Errorf("erasing nothing: %v", err)
	}
	path := filepath.Join(dir, "config.json")
	for _, host := range []string{"", "https://registry.corp/", "other.corp:5000"} {
		if _, err := c.Store(t.Context(), host, authn.AuthConfig{Username: "u", Password: "p:w"}); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"docker.io", "registry.corp", "other.corp:5000"} {
		if user(t, c, host, "x") != "u:p:w" || user(t, again, host, "x") != "u:p:w" {
			t.Errorf("%s: %q, %q when read again", host, user(t, c, host, "x"), user(t, again, host, "x"))
		}
	}
	// What others keep in the file stays, and a link stays a link.
	real := filepath.Join(t.TempDir(), "real.json")
	writeFile(t, real, `{"auths":{"https://registry.corp/v2/":{"auth":"eDp5"},"registry.corp":{"auth":"eDp5"},"keep.corp":{"auth":"eDp5","email":"e"}},"future":{"a":[1]},"credHelpers":{"x":"y"}}`, 0o644)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, path); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if found, err := c.Erase(t.Context(), "registry.corp"); err != nil || !found {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	var compact strings.Builder
	var v any
	_ = json.Unmarshal(raw, &v)
	_ = json.NewEncoder(&compact).Encode(v)
	want := `{"auths":{"keep.corp":{"auth":"eDp5","email":"e"}},"credHelpers":{"x":"y"},"future":{"a":[1]}}` + "\n"
	if compact.String() != want {
		t.Errorf("file is\n%s, want\n%s", compact.String(), want)
	}
	left, _ := os.ReadDir(filepath.Dir(real))
	if len(left) != 2 || left[1].Name() != "real.json.lock" {
		t.Errorf("files left behind: %v", left)
	}
}

// A helper is what docker calls one: a program that keeps secrets.
const helperScript = `#!/bin/sh
f="$(dirname "$0")/secrets"
case "$1" in
store) cat > "$f" ;;
get) read -r url; [ -s "$f" ] && grep -q "\"$url\"" "$f" && exec cat "$f"; echo "credentials not found in native keychain"; exit 1 ;;
erase) read -r url; [ -s "$f" ] || exit 1; rm "$f" ;;
esac
`

func TestCredentialHelper(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("needs sh for the helper:", err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(bin, "docker-credential-test"), helperScript, 0o700)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH")) //nolint:forbidigo // the helper needs sh
	config := filepath.Join(dir, "config.json")
	writeFile(t, config, `{"credsStore":"gone","credHelpers":{"registry.corp":"test","docker.io":"test"}}`, 0o600)
	c, err := LoadCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"registry.corp", "docker.io"} {
		if got := user(t, c, host, "x"); got != "" {
			t.Errorf("%s before a login: %q", host, got)
		}
		if _, err := c.Store(t.Context(), host, authn.AuthConfig{Username: "u", Password: "secret"}); err != nil {
			t.Fatal(err)
		}
		if got := user(t, c, host, "x"); got != "u:secret" {
			t.Errorf("%s: got %q", host, got)
		}
		if raw, _ := os.ReadFile(config); strings.Contains(string(raw), "secret\"") || strings.Contains(string(raw), "dTpz") || !strings.Contains(string(raw), serverKey(host)) {
			t.Errorf("config.json after a login: %s", raw)
		}
		if found, err := c.Erase(t.Context(), host); err != nil || !found {
			t.Fatal(found, err)
		}
		if found, err := c.Erase(t.Context(), host); err != nil || found {
			t.Errorf("erasing twice: %v, %v", found, err)
		}
		if got := user(t, c, host, "x"); got != "" {
			t.Errorf("%s after a logout: %q", host, got)
		}
	}
	if _, err := c.Store(t.Context(), "registry.corp", authn.AuthConfig{IdentityToken: "refresh"}); err != nil {
		t.Fatal(err)
	}
	if got := user(t, c, "registry.corp", "x"); got != "token:refresh" {
		t.Errorf("identity token: got %q", got)
	}

	// A helper that is missing: public images still work, a login does not end in clear text.
	if got := user(t, c, "other.corp", "x"); got != "" {
		t.Errorf("with a missing helper: %q", got)
	}
	_, err = c.Store(t.Context(), "other.corp", authn.AuthConfig{Username: "u", Password: "secret"})
	var helper *HelperError
	if !errors.As(err, &helper) || err.Error() != `credential helper "docker-credential-gone" for registry other.corp is not installed` {
		t.Errorf("storing without the helper: %v", err)
	}
}

func TestBadCredentialFiles(t *testing.T) {
	for content, want := range map[string]string{"{": "unexpected EOF", `{"auths":{"a":{"auth":"!"}}}`: "base64"} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "config.json"), content, 0o600)
		if _, err := LoadCredentials(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", content, err)
		}
	}
}
