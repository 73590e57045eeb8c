package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// fit fails unless err can be shown on a terminal.
func fit(t *testing.T, input string, err error) {
	t.Helper()
	if err != nil && (strings.ContainsFunc(err.Error(), unicode.IsControl) || len(err.Error()) > 8*maxReference) {
		t.Errorf("error of %q is unfit for a terminal: %q", input, err)
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"alpine", "Alpine:x", "http://a/b", "localhost:5000/a:b@sha256:" + strings.Repeat("0", 64),
		"a\x1b[0m", "[::1]:80/x", ":", "@", "a:b:c", strings.Repeat("f", 64), "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		named, err := ParseReference(s)
		if err != nil {
			fit(t, s, err)
			return
		}
		again, err := ParseReference(named.String())
		if err != nil || again.String() != named.String() {
			t.Errorf("%q is %s, and that is %v, %v", s, named, again, err)
		}
	})
}

// A manifest's type decides how its bytes are read later: it is never a guess
// between two kinds.
func FuzzManifestType(f *testing.F) {
	f.Add(`{"schemaVersion":2,"manifests":[]}`, "application/vnd.oci.image.index.v1+json")
	f.Add(`{"config":{},"layers":[]}`, "text/plain; charset=utf-8")
	f.Add(`{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`, "")
	f.Add(`{"schemaVersion":1,"fsLayers":[]}`, ";;")
	f.Fuzz(func(t *testing.T, raw, contentType string) {
		got, err := manifestType([]byte(raw), contentType)
		fit(t, raw, err)
		if err == nil && got.IsIndex() == got.IsImage() {
			t.Errorf("%q, announced as %q, is %q", raw, contentType, got)
		}
	})
}

// Any hosts.toml is read or refused; what is read tells endpoints apart.
func FuzzHostsFile(f *testing.F) {
	f.Add("server = \"https://a.corp/v2/x\"\noverride_path = true\n")
	f.Add("[host.\"http://b.corp:80\"]\ncapabilities = [\"pull\"]\n[host.\"http://b.corp:80\".header]\nx = [\"y\"]\n")
	f.Add("skip_verify = true\ndial_timeout = \"1s\"\n")
	f.Add("server = [")
	f.Add("server = \"https://b.corp\"\n[x-wherry.exclude]\n\"b.corp\" = [\"team/*\", \"!team/open\"]\n")
	root := f.TempDir()
	if err := os.Mkdir(filepath.Join(root, "a.corp"), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, toml string) {
		if err := os.WriteFile(filepath.Join(root, "a.corp", "hosts.toml"), []byte(toml), 0o600); err != nil {
			t.Fatal(err)
		}
		endpoints, err := newClient(Config{HostsDirs: []string{root}}).allEndpoints(t.Context(), "a.corp")
		for _, e := range endpoints {
			e.mayServe("team/app")
			if err != nil || e.base == nil || e.scheme == "http" && !e.plain {
				t.Errorf("%q: endpoint %+v with %v", toml, e, err)
			}
		}
	})
}

// What a search finds can be pulled, and shown on a terminal.
func FuzzParseSearch(f *testing.F) {
	f.Add(`{"results":[{"name":"alpine","description":"a\u001b[0m","star_count":-1,"is_official":true}]}`, true)
	f.Add(`{"results":[{"name":"a.corp/b"},{"name":"B"},{"name":"b:1"}]}`, false)
	f.Add(`{"results":null}`, false)
	f.Fuzz(func(t *testing.T, raw string, hub bool) {
		host := "a.corp"
		if hub {
			host = dockerHub
		}
		found, err := parseSearch([]byte(raw), host)
		fit(t, raw, err)
		for _, r := range found {
			ref, err := ParseReference(r.Name)
			if err != nil || !strings.HasPrefix(ref.String(), host+"/") || r.Stars < 0 || strings.ContainsFunc(r.Description, unicode.IsControl) {
				t.Errorf("%q of %s has %+v: %v", raw, host, r, err)
			}
		}
	})
}
