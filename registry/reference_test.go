package registry

import (
	"errors"
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for in, want := range map[string]string{
		"alpine":                               "docker.io/library/alpine:latest",
		"alpine:3.20":                          "docker.io/library/alpine:3.20",
		"me/app":                               "docker.io/me/app:latest",
		"index.docker.io/alpine":               "docker.io/library/alpine:latest",
		"docker.io/alpine":                     "docker.io/library/alpine:latest",
		"localhost/app":                        "localhost/app:latest",
		"registry.corp:5000/a/b/c:V1":          "registry.corp:5000/a/b/c:V1",
		"[::1]:5000/app":                       "[::1]:5000/app:latest",
		"alpine@" + digest:                     "docker.io/library/alpine@" + digest,
		"alpine:3.20@" + digest:                "docker.io/library/alpine:3.20@" + digest,
		"Registry.Corp/app":                    "Registry.Corp/app:latest",
		"a@sha512:" + strings.Repeat("0", 128): "docker.io/library/a@sha512:" + strings.Repeat("0", 128),
	} {
		got, err := ParseReference(in)
		if err != nil || got.String() != want {
			t.Errorf("%q: got %v, %v, want %s", in, got, err, want)
		}
	}
	for in, why := range map[string]string{
		"":                                    "empty",
		"Alpine":                              `lower case: "alpine"`,
		"registry.corp/My/App:V1":             `lower case: "registry.corp/my/app:V1"`,
		"http://registry.corp/app":            `leave out "http://", write "registry.corp/app"`,
		"docker://alpine":                     `write "alpine"`,
		"al pine":                             "white space",
		"alpine\x1b[31m":                      "want [HOST",
		"-t":                                  "dash",
		":tag":                                "no name",
		"alpine:":                             "tag or digest is empty",
		"alpine:-x":                           `tag "-x"`,
		"alpine:" + strings.Repeat("x", 129):  "more than 128",
		"alpine@sha256:abc":                   `digest "sha256:abc"`,
		strings.Repeat("ab", 32):              "ID of an image",
		strings.Repeat("a/", 200) + "b":       "401 characters, more than 255",
		strings.Repeat("x", 2000):             "2000 characters",
		"a//b":                                "want [HOST",
		"a@sha384:" + strings.Repeat("0", 96): "sha384 are not supported",
	} {
		got, err := ParseReference(in)
		var bad *ReferenceError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %v, %v, want an error with %q", in, got, err, why)
		}
	}
}
