package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// writeHelp prints the help of the last command in path in docker's shape, or
// the program's where path is empty.
func writeHelp(w io.Writer, app *cli.App, path []*cli.Command) error {
	var b bytes.Buffer
	if len(path) == 0 {
		writeProgramHelp(&b, app)
	} else {
		writeCommandHelp(&b, app, path)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func writeProgramHelp(b *bytes.Buffer, app *cli.App) {
	fmt.Fprintf(b, "Usage:  %s [OPTIONS] COMMAND\n\n%s\n", app.Name, app.Usage)
	var single, grouped []*cli.Command
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		if len(c.Subcommands) > 0 {
			grouped = append(grouped, c)
		} else {
			single = append(single, c)
		}
	}
	writeCommandList(b, "Commands", single)
	writeCommandList(b, "Management Commands", grouped)
	writeFlags(b, "Global Options", app.Flags)
	fmt.Fprintf(b, "\nRun '%s COMMAND --help' for more information on a command.\n", app.Name)
}

func writeCommandHelp(b *bytes.Buffer, app *cli.App, path []*cli.Command) {
	c := path[len(path)-1]
	name := typedPath(app, path)
	usage := name
	if len(c.Flags) > 0 {
		usage += " [OPTIONS]"
	}
	fmt.Fprintf(b, "Usage:  %s\n\n%s\n", strings.TrimSpace(usage+" "+c.ArgsUsage), c.Usage)
	if c.Description != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(c.Description))
	}
	if aliases := otherNames(app, c); len(aliases) > 1 {
		fmt.Fprintf(b, "\nAliases:\n  %s\n", strings.Join(aliases, ", "))
	}
	writeCommandList(b, "Commands", c.Subcommands)
	writeFlags(b, "Options", c.Flags)
	if len(c.Subcommands) > 0 {
		fmt.Fprintf(b, "\nRun '%s COMMAND --help' for more information on a command.\n", name)
	}
}

// otherNames returns every way to type the command that c is, by what it says it does.
func otherNames(app *cli.App, c *cli.Command) []string {
	if len(c.Subcommands) > 0 {
		return nil
	}
	var all []string
	walk(app.Commands, nil, func(path []*cli.Command) {
		last := path[len(path)-1]
		if last.Usage != c.Usage {
			return
		}
		for _, name := range last.Names() {
			all = append(all, typedPath(app, append(slices.Clone(path[:len(path)-1]), &cli.Command{Name: name})))
		}
	})
	return all
}

// walk visits every command below above, outermost first.
func walk(list, above []*cli.Command, visit func(path []*cli.Command)) {
	for _, c := range list {
		path := append(slices.Clone(above), c)
		visit(path)
		walk(c.Subcommands, path, visit)
	}
}

// typedPath is what is typed to reach the last of path: "wherry image ls".
func typedPath(app *cli.App, path []*cli.Command) string {
	name := app.Name
	for _, p := range path {
		name += " " + p.Name
	}
	return name
}

func writeCommandList(b *bytes.Buffer, title string, list []*cli.Command) {
	if len(list) == 0 {
		return
	}
	widest := 0
	for _, c := range list {
		widest = max(widest, len(c.Name))
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, c := range list {
		fmt.Fprintf(b, "  %-*s   %s\n", widest, c.Name, c.Usage)
	}
}

// writeFlags prints the options table: "  -f, --format string   What it does".
func writeFlags(b *bytes.Buffer, title string, flags []cli.Flag) {
	var names []string
	var docs []cli.DocGenerationFlag
	widest := 0
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if visible, is := f.(cli.VisibleFlag); !ok || is && !visible.IsVisible() {
			continue
		}
		name := flagColumn(f)
		names, docs = append(names, name), append(docs, doc)
		widest = max(widest, len(name))
	}
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	indent := "\n" + strings.Repeat(" ", widest+5)
	for i, name := range names {
		fmt.Fprintf(b, "  %-*s   %s\n", widest, name, strings.ReplaceAll(docs[i].GetUsage(), "\n", indent))
	}
}

// flagColumn is the left column of the options table.
func flagColumn(f cli.Flag) string {
	short := "    "
	for _, n := range f.Names()[1:] {
		if len(n) == 1 {
			short = "-" + n + ", "
		}
	}
	return strings.TrimRight(short+"--"+f.Names()[0]+" "+valueWord(f), " ")
}

// valueWord is docker's word for the kind of value a flag takes.
func valueWord(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return ""
	case *cli.StringSliceFlag:
		return sliceWord(f.Names()[0])
	case *cli.IntFlag, *cli.Int64Flag:
		return "int"
	case *cli.DurationFlag:
		return "duration"
	}
	switch f.Names()[0] {
	case "memory", "memory-swap", "shm-size", "max-used-space", "min-free-space", "reserved-space":
		return "bytes"
	}
	return "string"
}

// sliceWord tells lists that commas separate as well from those that don't, and
// knows the few that docker calls otherwise.
func sliceWord(name string) string {
	switch name {
	case "filter", "ulimit":
		return name
	case "change":
		return "list"
	case "platform", "os-features", "add-host", "security-opt":
		return "stringSlice"
	}
	return "stringArray"
}
