package farm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func platformsOf(list ...string) []v1.Platform {
	var all []v1.Platform
	for _, s := range list {
		p, err := v1.ParsePlatform(s)
		if err != nil {
			panic(err)
		}
		all = append(all, *p)
	}
	return all
}

// What becomes of an address that a program is started with.
func TestEndpointCommands(t *testing.T) {
	for text, want := range map[string]string{
		"ssh://host":                                       "ssh -- host buildctl dial-stdio",
		"ssh://me@host:2222/run/b.sock":                    "ssh -l me -p 2222 -- host buildctl --addr unix:///run/b.sock dial-stdio",
		"kube-pod://pod-0?namespace=ci&container=c":        "kubectl --namespace=ci exec --container=c -i pod-0 -- buildctl dial-stdio",
		"kube-pod://pod-0?context=me@prod":                 "kubectl --context=me@prod exec -i pod-0 -- buildctl dial-stdio",
		"docker-container://buildx_buildkit0?context=away": "docker --context=away exec -i buildx_buildkit0 buildctl dial-stdio",
		"podman-container://b":                             "podman exec -i b buildctl dial-stdio",
		"ssh://-v":                                         "",
		"ssh://-v@host":                                    "",
		"ssh://a%20b":                                      "",
		"ssh://host/$(id)":                                 "",
		"ssh://host?x=y":                                   "",
		"ssh://host#x":                                     "",
		"ssh://me:password@host":                           "",
		"kube-pod://":                                      "",
		"kube-pod://UPPER":                                 "",
		"kube-pod://pod?container=-x":                      "",
		"kube-pod://pod?namespace=-x":                      "",
		"kube-pod://pod?command=sh":                        "",
		"docker-container://-x":                            "",
		"docker-container://a/b":                           "",
		"docker-container://a?context=%0Ax":                "",
		"podman-container://a?context=x":                   "",
		"unix://host/path":                                 "",
		"tcp://host:1/path":                                "",
		"tcp://me@host:1":                                  "",
		"npipe:////./pipe/x":                               "",
	} {
		e, err := parseEndpoint(text)
		if got := strings.Join(e.command, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "password@") {
			t.Errorf("%s: the error tells the password", text)
		}
	}
}

func TestParseNode(t *testing.T) {
	n, err := ParseNode(`tcp://host:1234,platform=linux/arm64,"platform=linux/arm/v7,linux/386",name=n,servername=s,wait=3s`)
	want := Node{
		Name: "n", Endpoint: "tcp://host:1234", Platforms: platformsOf("linux/arm64", "linux/arm/v7", "linux/386"),
		TLS: TLS{ServerName: "s"}, Wait: 3 * time.Second,
	}
	if err != nil || !reflect.DeepEqual(n, want) {
		t.Errorf("%+v, %v", n, err)
	}
	for _, s := range []string{"", "host", "tcp://h:1,x", "tcp://h:1,wait=-1s", "tcp://h:1,name=a/b", "tcp://h:1,platform=", "unix:///a,servername=x"} {
		if _, err := ParseNode(s); err == nil {
			t.Errorf("%q is a node", s)
		}
	}
}

func TestFolder(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "builders"))
	n, err := ParseNode("unix:///a,platform=linux/arm64,wait=2s")
	if err != nil {
		t.Fatal(err)
	}
	b := &Builder{Name: "farm"}
	if err := errors.Join(b.Add(n), f.Put(b), f.Use("farm")); err != nil {
		t.Fatal(err)
	}
	got, err := f.Get("farm")
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("%+v, %v", got, err)
	}
	if info, err := os.Stat(f.file("farm")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if current, err := f.Current(); err != nil || current != "farm" {
		t.Errorf("%q, %v", current, err)
	}
	if err := b.Add(Node{Name: "again", Endpoint: "unix:///a"}); err == nil {
		t.Error("two nodes have one address")
	}
	if err := f.Remove("farm"); err != nil {
		t.Error(err)
	}
	if current, err := f.Current(); err != nil || current != Default {
		t.Errorf("%q, %v", current, err)
	}
	for _, name := range []string{"farm", "../x", "", "a/b"} {
		if _, err := f.Get(name); !errors.As(err, new(*NoBuilderError)) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := f.Put(&Builder{Name: Default}); err == nil {
		t.Error("the default builder was replaced")
	}
}

func conn(name string, told []v1.Platform, own ...string) *Conn {
	c := &Conn{Node: Node{Name: name, Platforms: told}, Worker: &client.WorkerInfo{}}
	for _, p := range platformsOf(own...) {
		c.Worker.Platforms = append(c.Worker.Platforms, ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
	}
	return c
}

func TestAssign(t *testing.T) {
	amd := conn("amd", nil, "linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64", "linux/riscv64")
	arm := conn("arm", nil, "linux/arm64", "linux/arm/v7")
	told := conn("told", platformsOf("linux/arm64"), "linux/amd64", "linux/386")
	for _, tt := range []struct {
		conns  []*Conn
		wanted []v1.Platform
		want   string
	}{
		{[]*Conn{amd, arm}, platformsOf("linux/arm64", "linux/amd64", "linux/arm/v7"), "linux/arm64 is built on node \"arm\", natively; linux/amd64 is built on node \"amd\", natively; linux/arm/v7 is built on node \"arm\", natively"},
		{[]*Conn{amd, told}, platformsOf("linux/arm64", "linux/386"), "linux/arm64 is built on node \"told\", as the builder says; linux/386 is built on node \"amd\", natively"},
		{[]*Conn{amd}, platformsOf("linux/arm64", "linux/s390x"), "linux/arm64 is built on node \"amd\", by emulation; linux/s390x is built on node \"amd\", but its steps (RUN) can't be run there"},
		{[]*Conn{arm, told}, platformsOf("linux/amd64"), "linux/amd64 is built on node \"told\", natively"},
	} {
		if got := strings.Join(Plan(tt.wanted, Assign(tt.wanted, tt.conns)), "; "); got != tt.want {
			t.Errorf("%s\nwant %s", got, tt.want)
		}
	}
}

func TestIndex(t *testing.T) {
	of := func(text string) ocispecs.Descriptor {
		return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromString(text), Size: 1}
	}
	arm := of("arm")
	arm.Platform = &ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	attested := of("attestation")
	attested.Platform = &ocispecs.Platform{OS: "unknown", Architecture: "unknown"}
	raw, err := json.Marshal(ocispecs.Index{Manifests: []ocispecs.Descriptor{arm, attested}})
	if err != nil {
		t.Fatal(err)
	}
	whole := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	wanted := platformsOf("linux/amd64", "linux/arm64")
	parts := []Made{{Descriptor: whole, Raw: raw, Platforms: wanted[1:]}, {Descriptor: of("amd"), Platforms: wanted[:1]}}
	d, raw, err := Index(wanted, parts, Annotations{Descriptor: map[string]map[string]string{"linux/arm64": {"a": "b"}}})
	if err != nil || d.Digest != digest.FromBytes(raw) {
		t.Fatal(d, err)
	}
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	var order []digest.Digest
	for _, m := range index.Manifests {
		order = append(order, m.Digest)
	}
	if !reflect.DeepEqual(order, []digest.Digest{of("amd").Digest, arm.Digest, attested.Digest}) {
		t.Error(order)
	}
	if index.Manifests[1].Annotations["a"] != "b" || index.Manifests[0].Annotations != nil {
		t.Errorf("%s", raw)
	}
	if _, _, err := Index(wanted, parts[:1], Annotations{}); err == nil {
		t.Error("an index without one of its platforms")
	}
}
