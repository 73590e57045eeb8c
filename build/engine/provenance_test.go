//go:build linux

package engine

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestProvenanceIsDiscreet(t *testing.T) {
	const text = `{"runDetails": {"metadata": {"startedOn": "2026-01-01T00:00:00Z"}}, "n": 12345678901234567890,
		"request": {"args": {"context:dir": "local:named-dir", "sharedkey:localdir:dir": "/home/me/dir",
			"build-arg:HTTPS_PROXY": "http://me:secret@proxy:3128"}},
		"op": {"attrs": {"local.sharedkeyhint": "/home/me/dir"}, "env": ["all_proxy=socks5://me:secret@proxy", "A=b@c=d", "PATH=/bin"],
			"identifier": "docker-image://docker.io/library/alpine:3@sha256:12"},
		"uri": ["ssh://git@host/repo.git", "pkg:docker/alpine@3?platform=linux%2Famd64"]}`
	const kept = `"request": {"args": {"build-arg:HTTPS_PROXY": "http://xxxxx:xxxxx@proxy:3128", "context:dir": "local:named-dir"}},
		"op": {"attrs": {}, "env": ["all_proxy=socks5://xxxxx:xxxxx@proxy", "A=b@c=d", "PATH=/bin"],
			"identifier": "docker-image://docker.io/library/alpine:3@sha256:12"},
		"uri": ["ssh://git@host/repo.git", "pkg:docker/alpine@3?platform=linux%2Famd64"]}`
	for reproducible, want := range map[bool]string{
		false: `{"runDetails": {"metadata": {"startedOn": "2026-01-01T00:00:00Z"}}, "n": 12345678901234567890,` + kept,
		true:  `{"runDetails": {"metadata": {}}, "n": 12345678901234567890,` + kept,
	} {
		got, err := discreetJSON([]byte(text), reproducible)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := compact(t, got), string(sorted(t, want)); a != b {
			t.Errorf("reproducible %t: got\n%s\nwant\n%s", reproducible, a, b)
		}
	}
	if _, err := discreetJSON([]byte(`{`), false); err == nil {
		t.Error("half a predicate is none")
	}
}

// sorted is JSON with its keys in order.
func sorted(t *testing.T, text string) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compact(t *testing.T, text []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
