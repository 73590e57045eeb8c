package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sourced is a shell that does what a file says; or that, with the file's wherry being what is run in its stead.
func (r *recipe) sourced(args []string) ([]string, error) {
	file, err := r.path()
	if err != nil || args == nil {
		return []string{"-eu", file}, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	function, _, _ := strings.Cut(string(text), "\nwherry build")
	return []string{"-euc", function + "\nwherry " + quote(args)}, nil
}

// docker runs the file with an engine of its own, which has neither a network nor the firewall of the machine.
func (r *recipe) docker() (recipeRun, error) {
	home, shim := filepath.Join(r.dir, "home"), filepath.Join(r.dir, "bin")
	client, err := exec.LookPath("docker")
	if err != nil {
		return nil, err
	}
	// The registry of the test is on loopback.
	script := "#!/bin/sh\nverb=$1\nshift\nexec " + client + " \"$verb\" --network host \"$@\"\n"
	err = errors.Join(
		os.MkdirAll(filepath.Join(home, ".docker"), 0o755), os.MkdirAll(shim, 0o755),
		os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(auths()), 0o600),
		os.WriteFile(filepath.Join(shim, "docker"), []byte(script), 0o755),
	)
	if err != nil {
		return nil, err
	}
	env := []string{"HOME=" + home, "DOCKER_HOST=unix://" + filepath.Join(r.dir, "socket")}
	return func(ctx context.Context, args ...string) (string, error) {
		stop, err := r.startDocker(ctx)
		if err != nil {
			return "", err
		}
		defer stop()
		if out, err := r.command(ctx, r.dir, env, client, "load", "-i", filepath.Join(r.recipes.dir, "own.tar")); err != nil {
			return out, err
		}
		shell, err := r.sourced(args)
		if err != nil {
			return "", err
		}
		return r.command(ctx, r.project(), append(env, "PATH="+shim+":"+os.Getenv("PATH")), "sh", shell...)
	}, nil
}

// startDocker starts the engine. What it keeps stays from start to start.
func (r *recipe) startDocker(ctx context.Context) (stop func(), err error) {
	log, err := os.Create(filepath.Join(r.dir, "engine.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
		"--data-root", filepath.Join(r.dir, "data"), "--exec-root", filepath.Join(r.dir, "exec"),
		"--pidfile", filepath.Join(r.dir, "pid"), "--host", "unix://"+filepath.Join(r.dir, "socket"), "--group", "root")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = unix.Unmount(filepath.Join(r.dir, "exec", "netns", "default"), unix.MNT_DETACH) // it leaves that
	}
	for range 100 {
		if exec.CommandContext(ctx, "docker", "-H", "unix://"+filepath.Join(r.dir, "socket"), "version").Run() == nil {
			return stop, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	text, err := os.ReadFile(filepath.Join(r.dir, "engine.log"))
	return nil, errors.Join(err, fmt.Errorf("dockerd does not answer\n%s", text))
}

// podman runs the file as root, and then as an ordinary user.
func (r *recipe) podman() (recipeRun, error) {
	return func(ctx context.Context, args ...string) (string, error) {
		shell, err := r.sourced(args)
		if err != nil {
			return "", err
		}
		out, err := r.podmanAs(ctx, account{name: "root", login: "root"}, shell)
		if err != nil {
			return out, fmt.Errorf("as root: %w", err)
		}
		return r.podmanAs(ctx, r.accounts["ranged"], shell)
	}, nil
}

// podmanEnv gives a user a podman that has nothing of the machine's, neither images nor settings. Its run is a short path, since
// sockets lie below it.
func (r *recipe) podmanEnv(who account, run string) ([]string, error) {
	home := who.home(r.dir)
	configs := filepath.Join(home, ".config", "containers")
	if err := errors.Join(who.makeHome(r.dir), os.MkdirAll(configs, 0o755), os.MkdirAll(run, 0o700)); err != nil {
		return nil, err
	}
	var err error
	for name, text := range map[string]string{
		"auth.json":       auths(),
		"storage.conf":    fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(home, "graph"), filepath.Join(run, "storage")),
		"containers.conf": fmt.Sprintf("[containers]\ndefault_ulimits = []\nnetns = \"host\"\n[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ntmp_dir = %q\n", filepath.Join(run, "tmp")),
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(configs, name), []byte(text), 0o644))
	}
	for _, dir := range []string{run, filepath.Dir(configs), configs} {
		err = errors.Join(err, os.Chown(dir, int(who.uid), int(who.gid)))
	}
	return []string{
		"HOME=" + home, "XDG_RUNTIME_DIR=" + run, "TMPDIR=" + run,
		"CONTAINERS_CONF=" + filepath.Join(configs, "containers.conf"), "CONTAINERS_STORAGE_CONF=" + filepath.Join(configs, "storage.conf"),
	}, err
}

// podmanAs runs a shell as a user whose podman has the image.
func (r *recipe) podmanAs(ctx context.Context, who account, shell []string) (string, error) {
	run := filepath.Join(r.suite.dir, fmt.Sprintf("p%d", who.uid))
	env, err := r.podmanEnv(who, run)
	if err := errors.Join(err, os.Chmod(r.project(), 0o777)); err != nil {
		return "", err
	}
	defer endPodman(run)
	as := []string{"--reuid", strconv.Itoa(int(who.uid)), "--regid", strconv.Itoa(int(who.gid)), "--clear-groups"}
	load := append(slices.Clone(as), "podman", "load", "-i", filepath.Join(r.recipes.dir, "own.tar"))
	if out, err := r.command(ctx, r.project(), env, "setpriv", load...); err != nil {
		return out, err
	}
	return r.command(ctx, r.project(), env, "setpriv", slices.Concat(as, []string{"sh"}, shell)...)
}

// endPodman ends the process that keeps a user's namespace.
func endPodman(run string) {
	text, err := os.ReadFile(filepath.Join(run, "tmp", "pause.pid"))
	if err != nil {
		return // root has none
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// machine runs the file as a user of this machine who has nothing; or first, as root, what sets the machine up for him, with folders
// of his own in the place of /etc.
func (r *recipe) machine() (recipeRun, error) {
	who := r.accounts["plain"]
	home := who.home(r.dir)
	user := filepath.Join(r.dir, "user.sh")
	certs := filepath.Join(home, ".config", "wherry")
	if err := errors.Join(os.MkdirAll(r.dir, 0o755), who.makeHome(r.dir), os.MkdirAll(certs, 0o755),
		command(context.Background(), "cp", "-r", filepath.Join(r.recipes.dir, "image", "certs.d"), certs),
		os.WriteFile(filepath.Join(home, "registry-token"), []byte(recipeToken+"\n"), 0o644),
		os.MkdirAll(filepath.Join(r.dir, "etc"), 0o755), command(context.Background(), "chown", "-R", strconv.Itoa(int(who.uid)), home)); err != nil {
		return nil, err
	}
	file, err := r.path()
	if err != nil {
		return nil, err
	}
	const script = `case $1 in
*setup.sh)
	cp -a /etc/. "$2/etc"
	mount --bind "$2/etc" /etc
	sh "$1" "$3"
	;;
esac
exec setpriv --reuid "$3" --regid "$3" --clear-groups env HOME="$4" sh -eu "$2/user.sh"`
	return func(ctx context.Context, args ...string) (string, error) {
		text, err := os.ReadFile("../examples/ci/vm.sh")
		if err == nil && args != nil {
			text = []byte("wherry " + quote(args) + "\n")
		}
		if err := errors.Join(err, os.WriteFile(user, text, 0o644)); err != nil {
			return "", err
		}
		return r.command(ctx, r.project(), nil, "unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "machine", file, r.dir, who.login, home)
	}, nil
}
