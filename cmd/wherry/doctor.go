package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// diagnosis is what doctor finds, with the fields of its templates and of its JSON.
type diagnosis struct {
	System      systemFacts
	Build       buildFacts
	Store       storeFacts
	Platforms   []platformFacts
	Nodes       []nodeFacts
	Credentials []helperFacts
	Registries  []registryFacts
}

// buildFacts are by what means builds work here.
type buildFacts struct {
	Rung      string // the letter of the first way to build that works; "" for none
	Isolation string // as --isolation has it
	Steps     bool   // RUN works
	Snapshots string // how file systems of steps are put together
	Label     string // what AppArmor or SELinux takes steps for; "" where neither is in force
	LabelHint string // what would have it take them for less
	Rungs     []rungFacts

	best    bestRung // the first that works
	profile string   // of AppArmor, that steps get
	label   string   // of SELinux, its type
	noLabel error    // why they don't get one
}

// rungFacts are about one way to build, the best first.
type rungFacts struct {
	Rung      string
	Name      string
	Isolation string
	Works     bool
	Reason    string // why not
	Hint      string // what would change that
}

// storeFacts are about the image store and the file system below it.
type storeFacts struct {
	Dir          string
	Filesystem   string
	Free         int64 // bytes
	SharesBlocks bool  // copies within it cost next to nothing
	Error        string
}

// platformFacts say how steps for a platform run here.
type platformFacts struct {
	Platform string
	Runs     string // "native", "emulated" or "no"
	Emulator string // the program that emulates it
	// Registered says that the host has the emulator registered; else it is registered for the steps alone.
	Registered bool
	Reason     string // why steps don't run
	Hint       string // what would change that
}

// nodeFacts are about a node of the builder that is in use, if that is not this process alone.
type nodeFacts struct {
	Builder   string
	Node      string
	Endpoint  string
	Works     bool
	Version   string   // of its BuildKit
	Platforms []string // whose steps it runs; those that it is for are marked with "*"
	Error     string
}

// helperFacts are about a credential helper that the configuration names.
type helperFacts struct {
	Helper     string   // "docker-credential-pass"
	Registries []string // none: all
	Path       string   // "": it is not installed
}

// registryFacts are about a host that serves a registry.
type registryFacts struct {
	Registry     string
	Host         string
	Milliseconds int64
	Works        bool
	Error        string
	Hint         string
}

func newDoctorCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "Show what works here, and what would make more work",
		ArgsUsage: "[REGISTRY...]",
		Description: `Everything is found by trying. The registries that are asked are those that there is a
login or a configuration for, and Docker Hub, unless others are named.

The exit code is 1 if builds with RUN can't work.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Usage: "Format output: 'json', or a Go template"},
		},
		Action: func(c *cli.Context) error {
			return runDoctor(c.Context, e, c.Args().Slice(), c.String("format"))
		},
	}
}

func runDoctor(ctx context.Context, e *env, registries []string, format string) error {
	d := diagnosis{System: e.systemFacts()}
	var err error
	if d.Store, err = e.storeFacts(); err != nil {
		return err
	}
	if d.Build, err = e.findRungs(ctx, d.Store.Dir); err != nil {
		return err
	}
	d.Build.Label = labelOf(d.Build, d.System.SecurityModules)
	d.Platforms = e.platformsOf(d.Build)
	if d.Nodes, err = e.nodesInUse(ctx); err != nil {
		return err
	}
	stored, err := e.credentials()
	if err != nil {
		return err
	}
	d.Credentials = helpersOf(stored)
	if d.Registries, err = e.reach(ctx, registries); err != nil {
		return err
	}
	if format == "" {
		writeDiagnosis(&e.Out, d)
	} else if err := writeTemplate(&e.Out, format, "", d); err != nil {
		return err
	}
	if d.Build.Steps {
		return nil
	}
	return errors.Join(withHint(errors.New("builds with RUN can't work here"), "%s", d.Build.hint()), e.flush())
}

// hint is the one of the best way to build that can be had.
func (b buildFacts) hint() string {
	for _, r := range slices.Backward(b.Rungs) {
		if r.Hint != "" {
			return r.Hint
		}
	}
	return "build on another machine, and load the image here"
}

// labelOf says what mandatory access control takes steps for.
func labelOf(b buildFacts, modules []string) string {
	switch {
	case !b.Steps:
		return ""
	case b.profile != "":
		return fmt.Sprintf("steps have the AppArmor profile %q", b.profile)
	case b.label != "":
		return "steps have the SELinux label " + b.label
	case b.noLabel != nil:
		return b.noLabel.Error()
	case slices.Contains(modules, "selinux"):
		return "steps keep the SELinux label of wherry itself"
	case slices.Contains(modules, "apparmor"):
		return "steps keep the AppArmor profile of wherry itself"
	}
	return ""
}

// storeFacts looks at the store, or where it would be: doctor changes nothing.
func (e *env) storeFacts() (storeFacts, error) {
	dir, err := e.storeDir()
	if err != nil {
		return storeFacts{}, err
	}
	f := storeFacts{Dir: dir}
	there := existing(dir)
	f.Filesystem, f.Free = filesystemOf(there)
	if f.SharesBlocks, err = layout.SharesBlocks(there); err != nil {
		f.Error = err.Error()
	}
	return f, nil
}

// existing is the folder itself, or the first above it that there is.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func helpersOf(stored *registry.Credentials) []helperFacts {
	list := []helperFacts{}
	for name, registries := range stored.Helpers() {
		program := "docker-credential-" + name
		path, _ := exec.LookPath(program)
		list = append(list, helperFacts{Helper: program, Registries: registries, Path: path})
	}
	slices.SortFunc(list, func(a, b helperFacts) int { return strings.Compare(a.Helper, b.Helper) })
	return list
}

// reachLimit bounds how long a registry is waited for.
const reachLimit = 10 * time.Second

// reach asks the registries that are named, or those that something is known of.
func (e *env) reach(ctx context.Context, names []string) ([]registryFacts, error) {
	if len(names) == 0 {
		names = e.registriesOf()
	}
	client, err := e.registryClient(nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	at := places{hosts: firstOf(e.hostsDirs()...)}
	answers := make([][]registryFacts, len(names))
	var asked sync.WaitGroup
	for i, name := range names {
		asked.Go(func() { answers[i] = askRegistry(ctx, client, name, at) })
	}
	asked.Wait()
	return slices.Concat(answers...), nil
}

func askRegistry(ctx context.Context, client *registry.Client, name string, at places) []registryFacts {
	hosts, err := client.Reach(ctx, name)
	if err != nil {
		text, hint, _ := describe(err, at)
		return []registryFacts{{Registry: name, Error: text, Hint: hint}}
	}
	list := make([]registryFacts, len(hosts))
	for i, h := range hosts {
		list[i] = registryFacts{Registry: name, Host: h.Host, Milliseconds: h.Took.Milliseconds(), Works: h.Err == nil}
		if h.Err != nil {
			list[i].Error, list[i].Hint, _ = describe(h.Err, at)
		}
	}
	return list
}

// registriesOf are Docker Hub and those of which something is known: a login, an image, a folder of its own.
func (e *env) registriesOf() []string {
	names := e.knownRegistries()
	for _, dir := range e.hostsDirs() {
		entries, _ := os.ReadDir(dir) // most are not there
		for _, entry := range entries {
			if name := entry.Name(); entry.IsDir() && name != "_default" {
				names = append(names, hostOfFolder(name))
			}
		}
	}
	slices.Sort(names)
	return append([]string{dockerHub}, slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == dockerHub })...)
}

// hostOfFolder reads a name in certs.d, where a port may be written "host_5000_" as Windows needs it.
func hostOfFolder(name string) string {
	if host, ok := strings.CutSuffix(name, "_"); ok {
		if i := strings.LastIndex(host, "_"); i >= 0 {
			return host[:i] + ":" + host[i+1:]
		}
	}
	return name
}
