package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/bcrypt"

	"github.com/wherry-oci/wherry/e2e/base"
	"github.com/wherry-oci/wherry/e2e/testreg"
)

// endpoint is a registry that a story started; inner is nil for Debian's.
type endpoint struct {
	inner *testreg.Registry
	addr  string
}

func (e *endpoint) put(repoTag string, what remote.Taggable) error {
	if e.inner != nil {
		return e.inner.Put(repoTag, what)
	}
	ref, err := name.ParseReference(e.addr+"/"+repoTag, name.Insecure)
	if err != nil {
		return err
	}
	if index, ok := what.(v1.ImageIndex); ok {
		return remote.WriteIndex(ref, index)
	}
	return remote.Write(ref, what.(v1.Image))
}

func (e *endpoint) digest(repoTag string) (v1.Hash, error) {
	if e.inner != nil {
		return e.inner.Digest(repoTag)
	}
	ref, err := name.ParseReference(e.addr+"/"+repoTag, name.Insecure)
	if err != nil {
		return v1.Hash{}, err
	}
	d, err := remote.Head(ref)
	if err != nil {
		return v1.Hash{}, err
	}
	return d.Digest, nil
}

// cmdRegistry: registry NAME [external] [tls] [client] [basic=USER:PASSWORD] [token=USER:PASSWORD] [life=DURATION] [realm=URL] [redirect=URL] [rate=BYTES] [apart] [behind=NAME] [manner=NAME]... [FAULT=TIMES]... starts a
// registry; its address is in $NAME, with tls its CA in the file $NAME_CA. With client it wants a certificate, which is
// in $NAME_CERT and $NAME_KEY; external: not on loopback. The faults and manners are testreg's. behind: in
// front of another one that has the content.
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	o := testreg.Options{Faults: map[string]int{}}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "tls":
			o.TLS = true
		case "client":
			o.Client = true
		case "external":
			o.External = true
		case "apart":
			o.Apart = true
		case "basic", "token":
			o.Auth = key
			o.User, o.Password, _ = strings.Cut(value, ":")
		case "rate":
			o.Rate = atoi(ts, value)
		case "life":
			life, err := time.ParseDuration(value)
			ts.Check(err)
			o.Life = life
		case "realm":
			o.Realm = value
		case "redirect":
			o.Redirect = value
		case "behind":
			o.Behind = storyOf(ts).registries[value].addr
		case "manner":
			o.Manners = append(o.Manners, value)
		default:
			o.Faults[key] = atoi(ts, value)
		}
	}
	r, err := testreg.Start(o)
	ts.Check(err)
	ts.Defer(r.Close)
	storyOf(ts).registries[args[0]] = &endpoint{inner: r, addr: r.Addr()}
	ts.Setenv(args[0], r.Addr())
	if o.TLS {
		writeTo(ts, args[0]+"_CA", r.CA())
	}
	if o.Client {
		cert, key := r.ClientCertificate()
		writeTo(ts, args[0]+"_CERT", cert)
		writeTo(ts, args[0]+"_KEY", key)
	}
}

// writeTo puts content into a file whose path is then in $NAME.
func writeTo(ts *testscript.TestScript, name string, content []byte) {
	file := filepath.Join(ts.Getenv("STATE"), name+".pem")
	ts.Check(os.WriteFile(file, content, 0o644))
	ts.Setenv(name, file)
}

func atoi(ts *testscript.TestScript, text string) int {
	n, err := strconv.Atoi(text)
	ts.Check(err)
	return n
}

// cmdDebianRegistry: debian-registry NAME [USER:PASSWORD|undeletable] runs Debian's docker-registry until the story ends; its address is in $NAME.
func cmdDebianRegistry(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(ts.Getenv("STATE"), "docker-registry-"+args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	addr := freeAddress(ts)
	undeletable := len(args) > 1 && args[1] == "undeletable"
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: %t}}\nhttp: {addr: %s}\n", dir, !undeletable, addr)
	if len(args) > 1 && !undeletable {
		user, password, _ := strings.Cut(args[1], ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(user+":"+string(hash)+"\n"), 0o600))
		config += fmt.Sprintf("auth: {htpasswd: {realm: story, path: %s}}\n", filepath.Join(dir, "htpasswd"))
	}
	file := filepath.Join(dir, "config.yml")
	ts.Check(os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.CommandContext(context.Background(), "docker-registry", "serve", file)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ts.Check(waitFor("http://" + addr + "/v2/"))
	storyOf(ts).registries[args[0]] = &endpoint{addr: addr}
	ts.Setenv(args[0], addr)
}

func freeAddress(ts *testscript.TestScript) string {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	return l.Addr().String()
}

func waitFor(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			return resp.Body.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer from %s: %w", url, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cmdPublish: publish NAME REPO:TAG base | nested DEPTH | odd ENTRY... | random [seed=N] [layers=N] [size=N] [platforms=A,B] puts an image into a
// registry without wherry. With platforms, or as base, it is an index.
func cmdPublish(ts *testscript.TestScript, _ bool, args []string) {
	e, ok := storyOf(ts).registries[args[0]]
	if !ok {
		ts.Fatalf("no registry %q", args[0])
	}
	ts.Check(e.put(args[1], made(ts, args[2:])))
}

// made is the image or index that "base | random KEY=VALUE..." describes.
func made(ts *testscript.TestScript, args []string) remote.Taggable {
	if args[0] == "base" {
		index, err := storyOf(ts).suite.base()
		ts.Check(err)
		return index
	}
	if args[0] == "foreign" {
		index, err := storyOf(ts).suite.foreign()
		ts.Check(err)
		return index
	}
	if args[0] == "odd" {
		return newOddIndex(ts, args[1:])
	}
	if args[0] == "nested" {
		index, err := base.Nested(atoi(ts, args[1]))
		ts.Check(err)
		return index
	}
	seed, layers, size := int64(1), int64(2), int64(10_000)
	var platforms []v1.Platform
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "seed":
			seed = int64(atoi(ts, value))
		case "layers":
			layers = int64(atoi(ts, value))
		case "size":
			size = int64(atoi(ts, value))
		case "platforms":
			for text := range strings.SplitSeq(value, ",") {
				p, err := v1.ParsePlatform(text)
				ts.Check(err)
				platforms = append(platforms, *p)
			}
		default:
			ts.Fatalf("what is %q?", arg)
		}
	}
	if platforms != nil {
		index, err := base.RandomIndex(seed, layers, size, platforms)
		ts.Check(err)
		return index
	}
	img, err := base.Random(seed, layers, size, hostPlatform())
	ts.Check(err)
	return img
}

// cmdRequests: requests NAME prints what a registry was asked, a line each.
func cmdRequests(ts *testscript.TestScript, _ bool, args []string) {
	// Asked for first: without it a command that prints nothing leaves the last one's output in place.
	out := ts.Stdout()
	for _, line := range storyOf(ts).registries[args[0]].inner.Requests() {
		fmt.Fprintln(out, line)
	}
}

// cmdPublished: [!] published NAME REPO:TAG prints the digest that a registry has under a name.
func cmdPublished(ts *testscript.TestScript, neg bool, args []string) {
	digest, err := storyOf(ts).registries[args[0]].digest(args[1])
	if neg {
		if err == nil {
			ts.Fatalf("%s is there", args[1])
		}
		return
	}
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), digest)
}

// cmdShown: shown NAME prints the requests that a registry was sent credentials with.
func cmdShown(ts *testscript.TestScript, _ bool, args []string) {
	out := ts.Stdout()
	for _, line := range storyOf(ts).registries[args[0]].inner.Shown() {
		fmt.Fprintln(out, line)
	}
}

// cmdSent: sent NAME FROM TO requires that a registry has sent that many bytes of blobs until now.
func cmdSent(ts *testscript.TestScript, _ bool, args []string) {
	got, from, to := storyOf(ts).registries[args[0]].inner.Sent(), int64(atoi(ts, args[1])), int64(atoi(ts, args[2]))
	if got < from || got > to {
		ts.Fatalf("%d bytes of blobs were sent", got)
	}
}
