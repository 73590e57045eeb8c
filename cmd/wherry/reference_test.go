package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

//go:generate go test -run ^TestReadmeReference$ -update .

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
	switch {
	case want == string(readme):
	case *update:
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("the README's command reference is not what the commands say: run 'go generate ./cmd/wherry'")
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
