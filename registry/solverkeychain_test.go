package registry

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// A solver knows hosts only. A host that the configuration has serve one registry alone stands for its name; of several
// names none comes before the host's own; and one that serves beside another stands for none.
func TestSolverKeychain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"one.corp": "server = \"https://lone.corp\"\n", "a.corp_5000_": "server = \"https://hub.corp/a\"\n", "b.corp": "server = \"https://hub.corp/b\"\n",
		"mirrored.corp": "server = \"https://mirrored.corp\"\n[host.\"https://mirror.corp\"]\n", "broken.corp": "server =",
	} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755), os.WriteFile(filepath.Join(dir, name, "hosts.toml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	keys := keychain{}
	for _, name := range []string{"one.corp", "a.corp:5000", "hub.corp", "lone.corp", "mirrored.corp"} {
		keys[name] = authn.AuthConfig{Username: name, Password: "p"}
	}
	c := New(Config{HostsDirs: []string{dir, filepath.Join(dir, "nowhere")}, Keychain: keys})
	for host, want := range map[string]string{
		"lone.corp": "one.corp", "hub.corp": "hub.corp", "mirror.corp": "", "mirrored.corp": "mirrored.corp", "other.corp": "",
	} {
		found, err := c.SolverKeychain(t.Context()).Resolve(resource{host, ""})
		if err != nil {
			t.Fatal(err)
		}
		login, err := found.Authorization()
		if err != nil || login.Username != want {
			t.Errorf("%s: %q, %v, want %q", host, login.Username, err, want)
		}
	}
	if names := c.namesOf(t.Context(), "hub.corp"); !slices.Equal(names, []string{"a.corp:5000", "b.corp"}) {
		t.Errorf("hub.corp is %q", names)
	}
}
