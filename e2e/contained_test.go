package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"
)

// contained [-user=UID[:GID]] [-cap-add=NAME] [-cap-drop=NAME] [-seccomp=podman|unconfined] [-root=DIR] [-image] PROGRAM ARG... stands where "as USER" may
// stand. It runs the program in a container as docker's default ones are: its seccomp profile, its capabilities, its
// masked paths. The container has the toolbox (or DIR) as root, the story's folders where they are outside, and the
// host's network. With -image a user has what the image gives him, and no home of the story's.
type container struct {
	spec *specs.Spec
	root string // "": the toolbox
	// seccomp is the profile: "" docker's, "podman" that of podman, "unconfined" none.
	seccomp string
	image   bool
	who     account
}

// dockerCapabilities are those that root in a container of docker's has.
var dockerCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// dockerMasked and dockerReadonly are what a container of docker's has under /proc and /sys.
var (
	dockerMasked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	dockerReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// containers counts them, for their names.
var containers atomic.Int64

// readContainer reads the flags, and returns what follows them.
func readContainer(args []string) (*container, []string, error) {
	c := &container{who: account{name: "contained"}}
	caps := slices.Clone(dockerCapabilities)
	for ; len(args) > 0 && strings.HasPrefix(args[0], "-"); args = args[1:] {
		flag, value, _ := strings.Cut(args[0], "=")
		switch flag {
		case "-user":
			uid, gid, both := strings.Cut(value, ":")
			if !both {
				gid = uid
			}
			u, errU := strconv.ParseUint(uid, 10, 32)
			g, errG := strconv.ParseUint(gid, 10, 32)
			if err := errors.Join(errU, errG); err != nil {
				return nil, nil, err
			}
			c.who.uid, c.who.gid = uint32(u), uint32(g)
			c.who.name, c.who.login = "contained-"+uid, "nobody-"+uid
		case "-cap-add":
			caps = append(caps, "CAP_"+value)
		case "-cap-drop":
			caps = slices.DeleteFunc(caps, func(name string) bool { return name == "CAP_"+value || value == "ALL" })
		case "-root":
			c.root = value
		case "-image":
			c.image = true
		case "-seccomp":
			c.seccomp = value
		default:
			return nil, nil, fmt.Errorf("contained: no flag %q", flag)
		}
	}
	var err error
	if c.spec, err = dockerSpec(caps, c.who); err != nil {
		return nil, nil, err
	}
	return c, args, c.setSeccomp(c.seccomp)
}

// setSeccomp has the container have a profile: see container.
func (c *container) setSeccomp(profile string) error {
	switch profile {
	case "":
	case "unconfined":
		c.spec.Linux.Seccomp = nil
	case "podman":
		text, err := os.ReadFile("/usr/share/containers/seccomp.json")
		if err != nil {
			return err
		}
		c.spec.Linux.Seccomp, err = seccomp.LoadProfile(string(text), c.spec)
		return err
	default:
		return fmt.Errorf("no seccomp profile %q", profile)
	}
	return nil
}

// dockerSpec is a container as docker's are by default, of a user.
func dockerSpec(caps []string, who account) (*specs.Spec, error) {
	s := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{},
		Process: &specs.Process{
			User:         specs.User{UID: who.uid, GID: who.gid},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps},
		},
		Hostname: "contained",
		Mounts:   dockerMounts(),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
			Resources:   &specs.LinuxResources{Devices: dockerDevices()},
			MaskedPaths: dockerMasked, ReadonlyPaths: dockerReadonly,
		},
	}
	if who.uid == 0 {
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = caps, caps
	}
	var err error
	s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	return s, err
}

func dockerMounts() []specs.Mount {
	private := []string{"nosuid", "noexec", "nodev"}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: private},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(private, "ro")},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: private},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(private, "mode=1777", "size=67108864")},
	}
}

// dockerDevices lets a container make any device, and use only the harmless ones.
func dockerDevices() []specs.LinuxDeviceCgroup {
	number := func(n int64) *int64 { return &n }
	list := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: number(136), Access: "rwm"},
	}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}} {
		list = append(list, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(d[0]), Minor: number(d[1]), Access: "rwm"})
	}
	return list
}

// bundle writes what runc needs to run cmd in the container, in a folder of its own, and has cmd be that.
func (c *container) bundle(dir, id string, cmd *exec.Cmd, binds []string) error {
	c.spec.Process.Args, c.spec.Process.Env, c.spec.Process.Cwd = cmd.Args, cmd.Env, cmd.Dir
	c.spec.Root.Path, c.spec.Linux.CgroupsPath = c.root, "/wherry-e2e/"+id
	for _, path := range binds {
		c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: path, Type: "bind", Source: path, Options: []string{"rbind", "rprivate", "rw"}})
	}
	text, err := json.Marshal(c.spec)
	if err != nil {
		return err
	}
	bundle := filepath.Join(dir, id)
	if err := errors.Join(os.MkdirAll(bundle, 0o700), os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)); err != nil {
		return err
	}
	cmd.Path, cmd.Err = exec.LookPath("runc")
	cmd.Args = []string{"runc", "--root", filepath.Join(dir, "runc"), "run", "--bundle", bundle, id}
	cmd.Dir = bundle
	return nil
}

// contain has cmd run in the container, which sees the folders of binds, and leaves what runc needs in state. remove
// ends the container if it is still there.
func (c *container) contain(ctx context.Context, s *suite, state string, binds []string, cmd *exec.Cmd) (remove func() error, err error) {
	if c.root == "" {
		if c.root, err = s.toolboxRoot(); err != nil {
			return nil, err
		}
	}
	id := fmt.Sprintf("wherry-e2e-%d-%d", os.Getpid(), containers.Add(1))
	dir := filepath.Join(state, "containers")
	if err := c.bundle(dir, id, cmd, binds); err != nil {
		return nil, err
	}
	runc, ctx := cmd.Path, context.WithoutCancel(ctx)
	remove = func() error {
		return exec.CommandContext(ctx, runc, "--root", filepath.Join(dir, "runc"), "delete", "--force", id).Run()
	}
	kill := cmd.Cancel
	cmd.Cancel = func() error { return errors.Join(remove(), kill()) }
	return remove, nil
}

// inStory has cmd run in the container, with a story's folders. Nothing of it outlives the story.
func (c *container) inStory(ctx context.Context, ts *testscript.TestScript, cmd *exec.Cmd) {
	suite := storyOf(ts).suite
	if c.root != "" {
		c.root = ts.MkAbs(c.root)
	}
	remove, err := c.contain(ctx, suite, ts.Getenv("STATE"), []string{suite.dir, filepath.Dir(ts.Getenv("WORK"))}, cmd)
	ts.Check(err)
	ts.Defer(func() { _ = remove() }) // it is gone already where it has ended by itself
}

// containerRoot is not within what containers are given of the host: through that they would see a second /proc, of
// which nothing is masked.
func (s *suite) containerRoot() string { return s.dir + "-root" }

// unpackToolbox makes the root file system that containers share.
func (s *suite) unpackToolbox() (root string, err error) {
	index, err := s.base()
	if err != nil {
		return "", err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", err
	}
	root = s.containerRoot()
	for _, child := range manifest.Manifests {
		if !child.Platform.Satisfies(hostPlatform()) {
			continue
		}
		img, err := index.Image(child.Digest)
		if err != nil {
			return "", err
		}
		files := mutate.Extract(img)
		defer files.Close()
		unpack := exec.CommandContext(context.Background(), "tar", "-C", root, "-xpf", "-")
		unpack.Stdin = files
		if err := errors.Join(os.Mkdir(root, 0o755), unpack.Run()); err != nil {
			return "", err
		}
	}
	// As docker does, the container has the machine's name service.
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if err := copyFile(file, filepath.Join(root, file), 0o644); err != nil {
			return "", err
		}
	}
	return root, nil
}
