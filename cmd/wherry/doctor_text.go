package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
)

// systemFacts are about the machine and who asks.
type systemFacts struct {
	OS     string // as the system calls itself: "Debian GNU/Linux 12 (bookworm)"
	Kernel string // "Linux 6.1.0"
	Arch   string
	User   string // "root", "ci (1000)"

	SecurityModules []string // those of the kernel that are in force: "landlock", "apparmor"; empty where it can't be seen
}

// margin is the width of the first column.
const margin = 13

// facts prints what belongs together: a title, and lines beside and below it.
type facts struct {
	w     io.Writer
	title string
}

func (f *facts) line(format string, args ...any) {
	fmt.Fprintf(f.w, "%-*s%s\n", margin, f.title, printable(fmt.Sprintf(format, args...)))
	f.title = ""
}

// hint is a command that would change what the line before it says.
func (f *facts) hint(text string) {
	if text != "" {
		f.line("    %s", text)
	}
}

// writeDiagnosis prints what was found for people.
func writeDiagnosis(w io.Writer, d diagnosis) {
	f := &facts{w, "System"}
	f.line("%s %s, %s, as %s", d.System.Kernel, d.System.Arch, d.System.OS, d.System.User)
	writeBuild(w, d.Build)
	f.title = "Store"
	writeStore(f, d.Store)
	f.title = "Platforms"
	if d.Build.Rung != "" && !d.Build.Steps {
		f.line("all of them, where there is no RUN")
	}
	writePlatforms(f, d.Platforms)
	f.title = "Builder"
	for _, n := range d.Nodes {
		if n.Works {
			f.line("%s: node %s (%s): BuildKit %s, %s", n.Builder, n.Node, n.Endpoint, n.Version, strings.Join(n.Platforms, ", "))
		} else {
			f.line("%s: %s", n.Builder, n.Error)
			f.hint(program + " builder inspect --bootstrap " + n.Builder)
		}
	}
	f.title = "Credentials"
	for _, h := range d.Credentials {
		whose := "all registries"
		if len(h.Registries) > 0 {
			whose = strings.Join(h.Registries, ", ")
		}
		if h.Path == "" {
			f.line("%s is not installed (for %s)", h.Helper, whose)
		} else {
			f.line("%s (for %s)", h.Path, whose)
		}
	}
	f.title = "Registries"
	for _, r := range d.Registries {
		writeRegistry(f, r)
	}
}

func writeBuild(w io.Writer, b buildFacts) {
	f := &facts{w, "Builds"}
	for _, r := range b.Rungs {
		if r.Rung == b.Rung {
			f.line("%s: %s (--isolation=%s)", r.Rung, r.Name, r.Isolation)
		}
	}
	if b.Rung == "" {
		f.line("need Linux")
	}
	for _, r := range b.Rungs {
		if r.Rung == b.Rung {
			break
		}
		f.line("not %s, %s: %s", r.Rung, r.Name, r.Reason)
		f.hint(r.Hint)
	}
	if b.Snapshots != "" {
		f.title = "Snapshots"
		f.line("%s", b.Snapshots)
	}
	if b.Label != "" {
		f.title = "Labels"
		f.line("%s", b.Label)
		f.hint(b.LabelHint)
	}
}

func writeStore(f *facts, s storeFacts) {
	line := s.Dir
	if s.Filesystem != "" {
		line += fmt.Sprintf(": %s, %s free", s.Filesystem, units.HumanSize(float64(s.Free)))
	}
	if s.SharesBlocks {
		line += ", files can share blocks"
	}
	f.line("%s", line)
	if s.Error != "" {
		f.line("can't be written: %s", s.Error)
	}
}

// writePlatforms has those together that the same would help.
func writePlatforms(f *facts, list []platformFacts) {
	var order []string
	helped := map[string][]string{}
	for _, p := range list {
		switch {
		case p.Runs == "emulated" && p.Registered:
			f.line("%s: emulated by %s, as this machine has registered", p.Platform, p.Emulator)
		case p.Runs == "emulated":
			f.line("%s: emulated by %s", p.Platform, p.Emulator)
		case p.Runs == "native":
			f.line("%s: native", p.Platform)
		default:
			if helped[p.Hint] == nil {
				order = append(order, p.Hint)
			}
			helped[p.Hint] = append(helped[p.Hint], p.Platform+": no, "+p.Reason)
		}
	}
	for _, hint := range order {
		for _, line := range helped[hint] {
			f.line("%s", line)
		}
		f.hint(hint)
	}
}

func writeRegistry(f *facts, r registryFacts) {
	name := r.Registry
	if r.Host != "" && r.Host != r.Registry {
		name += " at " + r.Host
	}
	if r.Works {
		f.line("%s: answers in %d ms", name, r.Milliseconds)
	} else {
		f.line("%s: %s", name, r.Error)
	}
	f.hint(r.Hint)
}
