package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-oci/wherry/e2e/testreg"
)

// buildkitd is the daemon at the version that wherry has inside: compiled once, into the
// user's cache folder, where the benchmarks look for it too.
var buildkitd = sync.OnceValues(func() (string, error) {
	const pkg = "github.com/moby/buildkit/cmd/buildkitd"
	version, err := goOutput("list", "-m", "-f", "{{.Version}}", "github.com/moby/buildkit")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "wherry-bench", strings.TrimSpace(version), "buildkitd")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	// "go install PKG@VERSION" refuses modules with exclude directives: so with a copy of
	// our go.mod that may grow.
	scratch, err := os.MkdirTemp("", "wherry-e2e-mod-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(scratch) }() // small, and in the system's folder for that
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := copyFile(filepath.Join("..", name), filepath.Join(scratch, name), 0o600); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	_, err = goOutput("build", "-mod=mod", "-modfile="+filepath.Join(scratch, "go.mod"), "-ldflags=-s -w", "-o", file, pkg)
	return file, err
})

func goOutput(args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return string(out), nil
}

// node is a BuildKit daemon of a story.
type node struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	socket string
	args   []string
}

// cmdBuildkitd: buildkitd NAME [tls] starts a BuildKit daemon that all users may use; its endpoint is in $NAME, a folder to
// look into in $NAME_DIR. With tls it listens at a port, and knows who shows a certificate: $NAME_CA, $NAME_CERT, $NAME_KEY.
// buildkitd -kill NAME ends it, with all its steps, as a power cut does; buildkitd -later DURATION NAME starts it anew.
func cmdBuildkitd(ts *testscript.TestScript, _ bool, args []string) {
	nodes := storyOf(ts).nodes
	switch args[0] {
	case "-kill":
		nodes[args[1]].kill()
		return
	case "-later":
		after, err := time.ParseDuration(args[1])
		ts.Check(err)
		n := nodes[args[2]]
		timer := time.AfterFunc(after, func() { _ = n.start() }) // the story hears of it by waiting in vain
		ts.Defer(func() {
			timer.Stop()
			n.kill()
		})
		return
	}
	program, err := buildkitd()
	ts.Check(err)
	dir := filepath.Join(ts.Getenv("STATE"), args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	n := &node{socket: filepath.Join(dir, "sock"), args: []string{
		"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", program, "--root", filepath.Join(dir, "root"),
		"--oci-worker-binary", "runc", "--containerd-worker=false", "--addr", "unix://" + filepath.Join(dir, "sock"),
	}}
	ts.Setenv(args[0], "unix://"+n.socket)
	ts.Setenv(args[0]+"_DIR", dir)
	if slices.Contains(args, "tls") {
		n.listenTLS(ts, args[0])
	}
	nodes[args[0]] = n
	ts.Check(n.start())
	ts.Defer(n.kill)
}

// listenTLS has the node listen at a port beside its socket.
func (n *node) listenTLS(ts *testscript.TestScript, name string) {
	authority, err := testreg.NewAuthority()
	ts.Check(err)
	cert, key, err := authority.Server()
	ts.Check(err)
	writeTo(ts, name+"_CA", authority.CA)
	writeTo(ts, name+"_SERVER", cert)
	writeTo(ts, name+"_SERVERKEY", key)
	cert, key, err = authority.Client()
	ts.Check(err)
	writeTo(ts, name+"_CERT", cert)
	writeTo(ts, name+"_KEY", key)
	addr := "tcp://" + freeAddress(ts)
	n.args = append(n.args, "--addr", addr, "--tlscacert", ts.Getenv(name+"_CA"), "--tlscert", ts.Getenv(name+"_SERVER"), "--tlskey", ts.Getenv(name+"_SERVERKEY"))
	ts.Setenv(name, addr)
}

// start runs the daemon, in namespaces that end with it, and waits until it listens.
func (n *node) start() error {
	log, err := os.Create(filepath.Join(filepath.Dir(n.socket), "log"))
	if err != nil {
		return err
	}
	n.cmd = exec.CommandContext(context.Background(), "unshare", n.args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		return err
	}
	n.ended = make(chan struct{})
	go func() {
		_ = n.cmd.Wait() // killed
		_ = log.Close()
		close(n.ended)
	}()
	for range 200 {
		if conn, err := dialSocket(n.socket); err == nil {
			return errors.Join(conn.Close(), os.Chmod(n.socket, 0o666))
		}
		select {
		case <-n.ended:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("buildkitd has ended:\n%s", text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("buildkitd does not listen")
}

func dialSocket(path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(context.Background(), "unix", path)
}

func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.ended
}

// cmdStub: stub PROGRAM NAME makes a program, first on the PATH, that connects stdin and stdout to a node whatever it is asked,
// and notes its arguments in the file PROGRAM.args.
func cmdStub(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(ts.Getenv("STATE"), "stubs")
	ts.Check(os.MkdirAll(dir, 0o755))
	self, err := os.Executable()
	ts.Check(err)
	file := filepath.Join(dir, args[0])
	ts.Check(copyFile(self, file, 0o755))
	ts.Check(os.WriteFile(file+stubSocket, []byte(storyOf(ts).nodes[args[1]].socket), 0o600))
	ts.Check(os.WriteFile(file+".notes", []byte(ts.MkAbs(args[0]+".args")), 0o600))
	if path := ts.Getenv("PATH"); !strings.HasPrefix(path, dir) {
		ts.Setenv("PATH", dir+string(os.PathListSeparator)+path)
	}
}

// stubSocket ends the name of the file that makes a program a stub: the socket that it is for.
const stubSocket = ".socket"

// runStub is a program between a node and who starts it; it returns where this is none.
func runStub() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	socket, err := os.ReadFile(self + stubSocket)
	if err != nil {
		return
	}
	notes, err := os.ReadFile(self + ".notes")
	if err == nil {
		err = os.WriteFile(string(notes), []byte(strings.Join(os.Args[1:], "\n")+"\n"), 0o600)
	}
	conn, dialErr := dialSocket(string(socket))
	if err := errors.Join(err, dialErr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin) // the other direction says when it is over
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(os.Stdout, conn)
	os.Exit(0)
}
