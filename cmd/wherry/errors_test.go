package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// Each typed error of the packages below becomes one line and, where there is
// something to type, a hint.
func TestDescribe(t *testing.T) {
	amd64, arm64 := v1.Platform{OS: "linux", Architecture: "amd64"}, v1.Platform{OS: "linux", Architecture: "arm64"}
	noMatch := &platform.NoMatchError{Want: arm64, Have: []v1.Platform{amd64}}
	id := func(hex string) v1.Hash {
		return v1.Hash{Algorithm: "sha256", Hex: hex + strings.Repeat("0", 64-len(hex))}
	}
	for _, c := range []struct {
		err        error
		text, hint string
		code       int
	}{
		{&usageError{command: "wherry image ls", err: errors.New("odd")}, "odd", "run 'wherry image ls --help'", exitUsage},
		{&unknownCommandError{parent: "wherry", name: "ls", near: "images"}, `"ls" is not a wherry command`, "wherry images", exitUsage},
		{&badFormatError{err: errors.New("odd"), fields: []string{"ID", "Tag"}}, "odd", "there are the fields .ID .Tag", exitUsage},
		{withHint(errors.New("odd"), "wherry %s", "x"), "odd", "wherry x", exitFailed},
		{
			concerning("pull", "alpine:3.20", fmt.Errorf("put: %w", noMatch)),
			`"alpine:3.20": no manifest for linux/arm64 (there is linux/amd64)`, "wherry pull --platform linux/amd64 alpine:3.20", exitFailed,
		},
		{
			concerning("history", "alpine", noMatch),
			`"alpine": no manifest for linux/arm64 (there is linux/amd64)`, "wherry pull --platform linux/arm64 alpine", exitFailed,
		},
		{concerning("load", "x.tar", noMatch), `"x.tar": no manifest for linux/arm64 (there is linux/amd64)`, "", exitFailed},
		{concerning("inspect", "alpine", &layout.NotFoundError{Ref: "alpine"}), `no such image: "alpine"`, "wherry pull alpine:latest", exitFailed},
		{concerning("inspect", "0123abcd", &layout.NotFoundError{Ref: "0123abcd"}), `no such image: "0123abcd"`, "wherry images", exitFailed},
		{concerning("rmi", "alpine", &layout.NotFoundError{Ref: "alpine"}), `no such image: "alpine"`, "wherry images", exitFailed},
		{
			concerning("inspect", "ab", &layout.AmbiguousError{Ref: "ab", IDs: []v1.Hash{id("abcdef0123456"), id("abcdef012345f")}}),
			`"ab" is the beginning of 2 image IDs`, "wherry inspect abcdef0123456", exitFailed,
		},
		{
			concerning("rmi", "ab", &layout.InUseError{Ref: "ab", Names: []string{"docker.io/library/a:1", "docker.io/library/b:1"}}),
			`"ab" has several names: a:1, b:1`, "wherry rmi -f ab", exitFailed,
		},
		{
			concerning("rmi", "ab", &layout.InUseError{Ref: "ab", Names: []string{"docker.io/library/a:1"}, Part: true}),
			`"ab" is a part of a:1`, "wherry rmi a:1", exitFailed,
		},
		{concerning("pull", "x", &registry.NotFoundError{Ref: "x:latest"}), `"x:latest" not found in the registry`, "", exitFailed},
		{
			concerning("pull", "x", &registry.UnauthorizedError{Host: "docker.io", Ref: "x:latest"}),
			`registry docker.io denies access to "x:latest"`, "wherry login", exitFailed,
		},
		{
			concerning("push", "reg:5000/x", &registry.UnauthorizedError{Host: "reg:5000", Ref: "reg:5000/x:latest"}),
			`registry reg:5000 denies access to "reg:5000/x:latest"`, "wherry login reg:5000", exitFailed,
		},
		{
			concerning("login", "reg:5000", &registry.UnauthorizedError{Host: "reg:5000", CredentialsSent: true}),
			"registry reg:5000 does not accept the credentials", "", exitFailed,
		},
		{
			concerning("pull", "reg:5000/x", &registry.TLSError{Host: "reg:5000", Plain: true}), "registry reg:5000 answers in plain HTTP, not TLS",
			`mkdir -p /home/me/.config/wherry/certs.d/reg:5000 && echo 'server = "http://reg:5000"' > /home/me/.config/wherry/certs.d/reg:5000/hosts.toml`, exitFailed,
		},
		{
			concerning("pull", "reg:5000/x", &registry.TLSError{Host: "reg:5000", Err: x509.UnknownAuthorityError{}}),
			"no trusted connection to registry reg:5000: its certificate is signed by an unknown authority",
			"mkdir -p /home/me/.config/wherry/certs.d/reg:5000 && cp THE-REGISTRYS-CA.crt /home/me/.config/wherry/certs.d/reg:5000/ca.crt", exitFailed,
		},
		{
			fmt.Errorf("write blob: %w", syscall.ENOSPC), "write blob: no space left on device",
			"remove images (wherry rmi IMAGE), or keep them on another disk (wherry --store DIR ...)", exitFailed,
		},
		{
			fmt.Errorf("open store: %w", &fs.PathError{Op: "mkdir", Path: "/var/store/x", Err: fs.ErrPermission}),
			"open store: mkdir /var/store/x: permission denied", "use a store of your own: wherry --store DIR ...", exitFailed,
		},
		{&fs.PathError{Op: "open", Path: "/etc/hosts", Err: fs.ErrPermission}, "open /etc/hosts: permission denied", "", exitFailed},
		{errors.New("odd"), "odd", "", exitFailed},
	} {
		text, hint, code := describe(c.err, places{store: "/var/store", hosts: "/home/me/.config/wherry/certs.d"})
		if text != c.text || hint != c.hint || code != c.code {
			t.Errorf("%T: got\n%s\n%s\n%d, want\n%s\n%s\n%d", c.err, text, hint, code, c.text, c.hint, c.code)
		}
	}
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	e := &env{Stderr: &b, StoreDir: "/var/store", Getenv: func(string) string { return "" }}
	ctx, cancel := context.WithCancel(context.Background())
	if code := report(ctx, e, nil); code != exitDone || b.Len() > 0 {
		t.Errorf("nil: exit code %d, %q", code, &b)
	}
	evil := errors.New("the server says \x1b]0;gotcha\a\r\nand \u009b31m more")
	if code := report(ctx, e, evil); code != exitFailed || b.String() != "wherry: the server says �]0;gotcha�� and �31m more\n" {
		t.Errorf("control characters: exit code %d, %q", code, &b)
	}
	b.Reset()
	cancel()
	if code := report(ctx, e, context.Canceled); code != exitInterrupted || b.String() != "wherry: interrupted\n" {
		t.Errorf("interrupted: exit code %d, %q", code, &b)
	}
}
