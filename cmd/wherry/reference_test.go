package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

//go:generate go test -run ^TestReadmeReference$|^TestManualIsTheReadme$ -update .

var update = flag.Bool("update", false, "write what is generated from the commands instead of comparing it")

const (
	referenceBegin = "<!-- reference:begin, written by go generate ./cmd/wherry -->\n"
	referenceEnd   = "<!-- reference:end -->\n"
)

// The README's reference is what the command tree says.
func TestReadmeReference(t *testing.T) {
	const file = "../../README.md"
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, begins := strings.Cut(string(readme), referenceBegin)
	_, tail, ends := strings.Cut(rest, referenceEnd)
	if !begins || !ends {
		t.Fatalf("the README has no %q and %q", referenceBegin, referenceEnd)
	}
	want := head + referenceBegin + referenceTable(newApp(&env{})) + referenceEnd + tail
	generated(t, file, "the README's command reference", string(readme), want)
}

// The manual pages say what the README says.
func TestManualIsTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "\n## The commands\n")
	commands, rest, _ := strings.Cut(rest, "\n## Command reference\n")
	_, rest, _ = strings.Cut(rest, "\n## What it prints\n")
	others, _, whole := strings.Cut(rest, "\n## What it needs from the host\n")
	if !whole {
		t.Fatal("the README's chapters have other titles, or another order")
	}
	generated(t, "manual.md", "the text of the manual pages", readmeParts, "## The commands\n"+commands+"\n## What it prints\n"+others)
}

// Every command's page has a description that is more than its one line, and examples.
func TestManualPages(t *testing.T) {
	m := newManual(newApp(&env{}), "")
	walk(m.app.Commands, nil, func(path []*cli.Command) {
		c := path[len(path)-1]
		if c.Hidden {
			return
		}
		if m.section(path) == "" && len(path) == 1 && len(c.Subcommands) == 0 {
			t.Errorf("the README's chapter about the commands has no section with %s in bold", c.Name)
		}
		if page := m.commandPage(path); len(c.Subcommands) == 0 && !strings.Contains(page, "\n.SH EXAMPLES\n") {
			t.Errorf("the README has no example of %s", typedPath(m.app, path))
		}
	})
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		"a **b** `c-d`\n.e":                       "a \\fBb\\fR \\fBc\\-d\\fR\n\\&.e\n",
		"**one**, **two** and **three**:":         "",
		"[the words](https://example.com) \\ ~ é": "the words \\e \\(ti \\[u00E9]\n",
		"one\n\ntwo":                              "one\n.PP\ntwo\n",
	} {
		var r roff
		r.paragraphs(text)
		if r.String() != want {
			t.Errorf("%q: got %q, want %q", text, r.String(), want)
		}
	}
}

// generated compares a file with what it should be, or writes it.
func generated(t *testing.T, file, what, have, want string) {
	t.Helper()
	switch {
	case have == want:
	case *update:
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not up to date: run 'go generate ./cmd/wherry'", what)
	}
}

// referenceTable lists all commands, each in one row under its short form.
func referenceTable(app *cli.App) string {
	var b strings.Builder
	b.WriteString("\n| command | what it does | options |\n|---|---|---|\n")
	fmt.Fprintf(&b, "| `%s` | any command | %s |\n", program, referenceFlags(app.Flags))
	seen := map[string]bool{}
	walk(app.Commands, nil, func(path []*cli.Command) {
		c := path[len(path)-1]
		if c.Hidden || len(c.Subcommands) > 0 || seen[c.Usage] {
			return
		}
		seen[c.Usage] = true
		names := otherNames(app, c)
		typed := "`" + strings.TrimSpace(strings.TrimPrefix(names[0], program+" ")+" "+c.ArgsUsage) + "`"
		for _, name := range names[1:] {
			typed += "<br>`" + strings.TrimPrefix(name, program+" ") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.ReplaceAll(typed, "|", `\|`), c.Usage, referenceFlags(c.Flags))
	})
	return b.String() + "\n"
}

// referenceFlags lists names and kinds of value: what they do is for --help.
func referenceFlags(flags []cli.Flag) string {
	var list []string
	for _, f := range flags {
		if visible, ok := f.(cli.VisibleFlag); ok && visible.IsVisible() {
			list = append(list, "`"+strings.TrimSpace(flagColumn(f))+"`")
		}
	}
	return strings.Join(list, ", ")
}
