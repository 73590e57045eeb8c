package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-oci/wherry/e2e/testreg"
)

// skips remembers which stories did not run, and why.
type skips struct {
	mu   sync.Mutex
	list []string
}

func (s *skips) add(story, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf("%s: %s", story, reason))
}

// print lists the skipped stories at the end, where people look.
func (s *skips) print(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return
	}
	slices.Sort(s.list)
	fmt.Fprintf(w, "%d stories skipped:\n", len(s.list))
	for _, line := range s.list {
		fmt.Fprintln(w, "  "+line)
	}
}

// cmdNeed: need CONDITION... skips the story by name where a condition does not hold. In CI that is a failure.
func cmdNeed(ts *testscript.TestScript, _ bool, args []string) {
	story := storyOf(ts)
	for _, cond := range args {
		ok, err := story.suite.condition(cond)
		ts.Check(err)
		if ok {
			continue
		}
		reason := "needs " + needs[cond]
		if os.Getenv("CI") == "true" {
			ts.Fatalf("%s; in CI nothing is skipped", reason)
		}
		story.suite.skips.add(ts.Name(), reason)
		story.t.Skip(reason)
	}
}

// skipUnbuildable skips a story that builds where the kernel lets this user have no namespaces. In CI that is a failure.
func (s *suite) skipUnbuildable(t testscript.T) error {
	named, ok := t.(interface{ Name() string })
	if !ok {
		return fmt.Errorf("%T has no name", t)
	}
	name := path.Base(named.Name())
	script, err := os.ReadFile(s.scripts[name])
	if err != nil || !bytes.Contains(script, []byte("wherry build")) {
		return err
	}
	reason := s.noBuild()
	switch {
	case reason == "":
		return nil
	case os.Getenv("CI") == "true":
		return fmt.Errorf("%s; in CI nothing is skipped", reason)
	}
	s.skips.add(name, reason)
	t.Skip(reason)
	return nil
}

// tryBuild builds nothing much, and says why that failed for want of a namespace.
func (s *suite) tryBuild() string {
	dir, err := os.MkdirTemp(s.dir, "try")
	if err != nil {
		return err.Error()
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY Dockerfile /\n"), 0o600); err != nil {
		return err.Error()
	}
	build := exec.CommandContext(context.Background(), filepath.Join(s.bin(), "wherry"), "--store", filepath.Join(dir, "store"), "build", "-q", "--isolation", "namespaces", dir)
	out, err := build.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("namespace")) {
		return "" // what else is wrong the stories will tell
	}
	return "needs namespaces: " + string(bytes.SplitN(out, []byte("\n"), 2)[0])
}

// needs says in words what a condition stands for.
var needs = map[string]string{
	"root":              "to run as root, to become other users",
	"ranged":            "a user with a subuid range, and newuidmap (Debian: uidmap)",
	"mount":             "the right to mount a tmpfs",
	"xfs":               "mkfs.xfs (Debian: xfsprogs) and the right to mount a loop device",
	"btrfs":             "mkfs.btrfs (Debian: btrfs-progs) and the right to mount a loop device",
	"filefrag":          "filefrag (Debian: e2fsprogs)",
	"skopeo":            "skopeo",
	"podman":            "podman",
	"umoci":             "umoci",
	"mmdebstrap":        "mmdebstrap, to make a Debian root",
	"dpkg-scanpackages": "dpkg-scanpackages, to make a repository of packages (Debian: dpkg-dev)",
	"docker-registry":   "Debian's docker-registry",
	"runc":              "runc, and the right to start a container",
	"git":               "git",
	"ssh-agent":         "ssh-agent and ssh-keygen (Debian: openssh-client)",
	"tmux":              "tmux, to be a terminal",
	"zsh":               "zsh",
	"fish":              "fish",
	"mandoc":            "mandoc, to check manual pages",
	"busybox":           "a static busybox (Debian: busybox-static)",
	"chromium":          "chromium, to look at a page",
	"dockerd":           "a running docker engine",
	"docker":            "dockerd and docker, to start an engine (Debian: docker.io)",
	"external":          "an address that is not loopback",
	"overlay":           "overlayfs",
	"emulators":         "qemu-aarch64-static and its like (Debian: qemu-user-static), Linux 6.7, and an amd64 machine",
	"memory-cgroup":     "the right to make a cgroup that limits memory",
}

// condition answers what scripts ask in brackets and by "need".
func (s *suite) condition(cond string) (bool, error) {
	if _, ok := needs[cond]; !ok {
		return false, fmt.Errorf("no condition %q", cond)
	}
	switch cond {
	case "root":
		return s.accounts != nil, nil
	case "ranged":
		_, err := exec.LookPath("newuidmap")
		return s.accounts != nil && err == nil, nil
	case "emulators":
		return canEmulate(), nil
	case "mount":
		return canMount(), nil
	case "xfs", "btrfs":
		return canLoop()[cond], nil
	case "external":
		return testreg.External() != "", nil
	case "memory-cgroup":
		return canLimitMemory(), nil
	case "dockerd":
		return exec.CommandContext(context.Background(), "docker", "version").Run() == nil, nil
	case "docker":
		_, errDaemon := exec.LookPath("dockerd")
		_, errClient := exec.LookPath("docker")
		return errDaemon == nil && errClient == nil, nil
	case "overlay":
		text, err := os.ReadFile("/proc/filesystems")
		return err == nil && slices.Contains(fields(text), "overlay"), nil
	}
	_, err := exec.LookPath(filepath.Base(cond))
	return err == nil, nil
}
