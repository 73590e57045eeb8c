package main

import (
	"strings"
	"testing"

	"github.com/wherry-oci/wherry/registry"
)

func TestSyncList(t *testing.T) {
	for name, test := range map[string]struct{ list, to, wrong string }{
		"a name":             {"to: r.corp/m\nimages: [alpine]", "", ""},
		"merged":             {"x-a: &a {tags: ['1.*'], to: r.corp/x}\nimages:\n- {<<: *a, from: alpine}", "", ""},
		"a number as a tag":  {"to: r.corp\nimages: [{from: alpine, tags: [3.10]}]", "", ""},
		"no destination":     {"images: [alpine]", "", `line 1: "alpine" goes nowhere`},
		"a key too many":     {"to: r\nimages:\n- {from: a, tag: x}", "", `line 3: "tag" in an image is not supported`},
		"no list":            {"to: r\nimages: alpine", "", `"images" is no list`},
		"a bad pattern":      {"to: r\nimages: [{from: a, tags: ['[']}]", "", "invalid pattern"},
		"a pattern of hosts": {"to: r\nimages: [{from: '*/a', tags: ['*']}]", "", "stands behind the name of a registry"},
		"several to one":     {"images: [{from: 'q.io/t/*', tags: ['*'], to: r.corp/x}]", "", `has to end in "/"`},
		"which tags":         {"to: r\nimages: [{from: 'q.io/t/*'}]", "", "say which"},
		"a word for a flag":  {"to: r\nall: perhaps\nimages: [a]", "", `"all" cannot be "perhaps"`},
		"regsync":            {"sync: [{source: a, target: r.corp/a, type: image, platforms: [linux/amd64]}]", "", ""},
		"regsync later":      {"version: 2\nsync: []", "", "version 2"},
		"regsync's backup":   {"sync: [{source: a, target: b, type: image, backup: c}]", "", `"backup" in "sync" is not supported`},
		"regsync's type":     {"sync: [{source: a, target: b}]", "", `"type" is ""`},
		"a bad expression":   {"sync: [{source: a, target: b, type: repository, tags: {allow: ['(']}}]", "", "no regular expression"},
		"skopeo":             {"q.io: {images: {a/b: [], c: ['1']}, images-by-semver: {d: '>= 1'}}", "r.corp", ""},
		"skopeo's range":     {"q.io: {images-by-semver: {d: 'x >'}}", "r.corp", "no range of versions"},
		"something else":     {"services: {}", "r", "no list of images"},
		"nothing":            {"", "r", "it is empty"},
		"aliases of aliases": {bomb(), "r", "more than 200000 values"},
	} {
		_, err := readSyncList(strings.NewReader(test.list), test.to)
		if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// bomb says a thousand times to copy a thousand tags.
func bomb() string {
	return "x-a: &a {from: alpine, tags: [" + strings.Repeat("x, ", 1000) + "x]}\nimages: [" + strings.Repeat("*a, ", 1000) + "*a]\n"
}

// Where an image goes.
func TestSyncTarget(t *testing.T) {
	for _, test := range []struct {
		from, to, want string
		lastPart       bool
	}{
		{"alpine:3", "r.corp/", "r.corp/library/alpine:latest", false},
		{"q.io/a/b", "localhost:5000/", "localhost:5000/a/b:latest", false},
		{"q.io/a/b", "docker://r.corp/m/", "r.corp/m/b:latest", true},
		{"q.io/a/b", "r.corp/x:1", "r.corp/x:1", false},
	} {
		ref, err := registry.ParseReference(test.from)
		if err != nil {
			t.Fatal(err)
		}
		e := &syncEntry{to: test.to, lastPart: test.lastPart}
		if p, err := e.target(&env{}, ref); err != nil || p.repo.String() != test.want {
			t.Errorf("%+v: %v, %v", test, p.repo, err)
		}
	}
}

// What others wrote is refused, or read within bounds.
func FuzzSyncList(f *testing.F) {
	f.Add("to: r.corp/m\nplatforms: [linux/amd64]\nall: true\nimages:\n- alpine:3\n- {from: q.io/t/*, tags: ['*', '!x'], to: r/}\n")
	f.Add("version: 1\ndefaults: {parallel: 2}\nsync:\n- {source: a, target: b, type: repository, tags: {allow: ['3.*']}}\n")
	f.Add("q.io:\n  images: {a: [], b: ['1']}\n  images-by-tag-regex: {c: ^1}\n  images-by-semver: {d: '>= 1'}\n  tls-verify: true\n")
	f.Add("a: &a [*a]\nimages: *a\n")
	f.Fuzz(func(t *testing.T, list string) {
		got, err := readSyncList(strings.NewReader(list), "r.corp")
		if err != nil {
			return
		}
		for _, e := range got.entries {
			if e.from == "" || e.to == "" {
				t.Errorf("an image without a place: %+v", e)
			}
		}
	})
}
