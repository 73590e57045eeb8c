package main

import (
	"bytes"
	"fmt"
	"io"
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
	writeCommandList(b, "Docker's long forms", grouped)
	writeFlags(b, "Global Options", app.Flags)
	fmt.Fprintf(b, "\nRun '%s COMMAND --help' for more information on a command.\n", app.Name)
}

func writeCommandHelp(b *bytes.Buffer, app *cli.App, path []*cli.Command) {
	c := path[len(path)-1]
	name := app.Name
	for _, p := range path {
		name += " " + p.Name
	}
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
	for _, top := range app.Commands {
		if top.Usage == c.Usage {
			all = append(all, app.Name+" "+top.Name)
		}
		for _, sub := range top.Subcommands {
			if sub.Usage == c.Usage {
				for _, name := range sub.Names() {
					all = append(all, app.Name+" "+top.Name+" "+name)
				}
			}
		}
	}
	return all
}

func writeCommandList(b *bytes.Buffer, title string, list []*cli.Command) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, c := range list {
		fmt.Fprintf(b, "  %-10s  %s\n", c.Name, c.Usage)
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
		return "stringArray"
	case *cli.IntFlag, *cli.Int64Flag:
		return "int"
	case *cli.DurationFlag:
		return "duration"
	}
	return "string"
}
