// Demo is wherry's whole main job on a real example, without any network: it
// starts a registry in its own process, builds examples/timetable for two
// platforms, pushes, pulls, saves and loads it, and looks at what arrived.
// Every command is shown before its output, as one would type it.
//
//	go run ./e2e/demo bin/wherry
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/wherry-oci/wherry/e2e/base"
	"github.com/wherry-oci/wherry/e2e/testreg"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("usage: demo WHERRY")
	}
	d := demo{ctx: ctx}
	if d.wherry, err = filepath.Abs(args[0]); err != nil {
		return err
	}
	if d.example, err = filepath.Abs("examples/timetable"); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "wherry-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	registry, err := testreg.Start(testreg.Options{})
	if err != nil {
		return err
	}
	defer registry.Close()
	fmt.Printf("# A registry at %s, with a base image for two platforms.\n", registry.Addr())
	index, err := base.Index(ctx)
	if err != nil {
		return err
	}
	if err := registry.Put("toolbox:latest", index); err != nil {
		return err
	}
	return d.mainJob(registry)
}

// demo runs wherry in a folder of its own.
type demo struct {
	ctx                  context.Context //nolint:containedctx // the program's own, for the length of one run
	wherry, example, dir string
}

func (d *demo) mainJob(registry *testreg.Registry) error {
	image := registry.Addr() + "/timetable:1"
	steps := []struct {
		say  string
		args []string
	}{
		{"Build it for two platforms: a RUN on this machine, the rest only copied.", []string{
			"--store", "first", "build", "--platform", "linux/amd64,linux/arm64",
			"--build-arg", "BASE=" + registry.Addr() + "/toolbox", "-t", image, d.example,
		}},
		{"Again: everything is in the cache, the digest is the same.", []string{
			"--store", "first", "build", "-q", "--platform", "linux/amd64,linux/arm64",
			"--build-arg", "BASE=" + registry.Addr() + "/toolbox", "-t", image, d.example,
		}},
		{"Publish both platforms under one name.", []string{"--store", "first", "push", image}},
		{"Fetch them into another store.", []string{"--store", "second", "pull", "--platform", "all", image}},
		{"Carry them in a file to a third one.", []string{"--store", "second", "save", "-o", "timetable.tar", image}},
		{"", []string{"--store", "third", "load", "-i", "timetable.tar"}},
		{"See what arrived.", []string{"--store", "third", "images"}},
		{"", []string{"--store", "third", "history", image}},
		{"", []string{
			"--store", "third", "inspect", "--format",
			"{{.Id}} {{.Os}}/{{.Architecture}} entrypoint {{json .Config.Entrypoint}} as {{.Config.User}}", image,
		}},
	}
	var last string
	for _, step := range steps {
		if step.say != "" {
			fmt.Printf("\n# %s\n", step.say)
		}
		out, err := d.run(step.args)
		if err != nil {
			return err
		}
		last = out
	}
	pushed, err := registry.Digest("timetable:1")
	if err != nil {
		return err
	}
	if !strings.Contains(last, pushed.String()) {
		return fmt.Errorf("what arrived is not %s, which was pushed", pushed)
	}
	fmt.Printf("\n# Registry, archive and stores agree on %s.\n", pushed)
	return nil
}

// run shows a command, runs it and returns what it wrote to stdout.
func (d *demo) run(args []string) (string, error) {
	quoted := make([]string, len(args))
	for i, arg := range args {
		if quoted[i] = arg; strings.ContainsAny(arg, " {}") {
			quoted[i] = "'" + arg + "'"
		}
	}
	fmt.Println("$ wherry " + strings.Join(quoted, " "))
	var out bytes.Buffer
	cmd := exec.CommandContext(d.ctx, d.wherry, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, io.MultiWriter(os.Stdout, &out), os.Stderr
	// Ours to find and ours to leave: no setting of this machine counts.
	cmd.Env = append(os.Environ(), "HOME="+d.dir, "WHERRY_STORE=", "DOCKER_CONFIG=")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("wherry %s: %w", strings.Join(args, " "), err)
	}
	return out.String(), nil
}
