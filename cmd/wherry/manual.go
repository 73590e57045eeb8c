package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// readmeParts are the README's chapters about the commands, what they print and
// where things are; go generate copies them, because nothing above this folder
// can be embedded.
//
//go:embed manual.md
var readmeParts string

// manual makes manual pages of the command tree and of what the README says.
type manual struct {
	app      *cli.App
	date     string
	chapters map[string]string // of the README, by their titles
	sections []string          // of the chapter about the commands, each of one or some of them
}

func newManual(app *cli.App, date string) *manual {
	m := &manual{app: app, date: date, chapters: map[string]string{}}
	for _, chapter := range strings.Split("\n"+readmeParts, "\n## ")[1:] {
		title, text, _ := strings.Cut(chapter, "\n")
		m.chapters[title] = strings.TrimSpace(text)
	}
	for _, paragraph := range strings.Split(m.chapters["The commands"], "\n\n") {
		if strings.HasPrefix(paragraph, "**") || len(m.sections) == 0 {
			m.sections = append(m.sections, paragraph)
		} else {
			m.sections[len(m.sections)-1] += "\n\n" + paragraph
		}
	}
	return m
}

// section returns what the README says of the command: the section that has one
// of its names, or those of its groups, in bold.
func (m *manual) section(path []*cli.Command) string {
	names := otherNames(m.app, path[len(path)-1])
	for n := len(path); n > 0; n-- {
		names = append(names, typedPath(m.app, path[:n]))
	}
	for _, name := range names {
		bold := "**" + strings.TrimPrefix(name, program+" ") + "**"
		for _, s := range m.sections[1:] {
			if strings.Contains(s, bold) {
				return s
			}
		}
	}
	return ""
}

// blocks are the fenced parts of a section.
var blocks = regexp.MustCompile("(?s)\n*```[a-z]*\n(.*?)\n```\n*")

func (m *manual) commandPage(path []*cli.Command) string {
	c := path[len(path)-1]
	name := typedPath(m.app, path)
	var r roff
	r.title(pageName(m.app, path), m.date)
	r.name(pageName(m.app, path), c.Usage)
	r.heading("SYNOPSIS")
	synopsis := `\fB` + escaped(name) + `\fR`
	if len(c.Flags) > 0 {
		synopsis += ` [\fIOPTIONS\fR]`
	}
	r.line(strings.TrimSpace(synopsis + " " + escaped(c.ArgsUsage)))
	section := m.section(path)
	r.heading("DESCRIPTION")
	r.paragraphs(c.Usage + ".")
	if c.Description != "" {
		r.block(c.Description)
	}
	r.paragraphs(blocks.ReplaceAllString(section, "\n\n"))
	if len(c.Subcommands) > 0 {
		r.heading("COMMANDS")
		r.commands(c.Subcommands)
	}
	r.flags("OPTIONS", c.Flags)
	if examples := m.examples(c, section); len(examples) > 0 {
		r.heading("EXAMPLES")
		r.block(strings.Join(examples, "\n"))
	}
	if names := otherNames(m.app, c); len(names) > 1 {
		r.heading("ALIASES")
		r.paragraphs("`" + strings.Join(names, "`, `") + "`")
	}
	r.heading("EXIT STATUS")
	r.line("0 for done, 1 for failed, 2 for a command line that makes no sense, 130 for interrupted.")
	r.heading("SEE ALSO")
	r.line(`\fBwherry\fR(1), also for the files and the environment that all commands share.`)
	return r.String()
}

// examples are the lines of a section's blocks that run c.
func (m *manual) examples(c *cli.Command, section string) []string {
	var found []string
	for _, block := range blocks.FindAllStringSubmatch(section, -1) {
		for line := range strings.SplitSeq(block[1], "\n") {
			_, words, ok := strings.Cut(line, program+" ")
			p := argParser{global: m.app.Flags, commands: m.app.Commands, words: strings.Fields(words), partial: true}
			if err := p.read(); !ok || err != nil || len(p.line.path) == 0 {
				continue
			}
			if ran := p.line.path[len(p.line.path)-1]; ran.Usage == c.Usage || slices.Contains(p.line.path, c) {
				found = append(found, line)
			}
		}
	}
	return found
}

func (m *manual) programPage() string {
	var r roff
	r.title(program, m.date)
	r.name(program, m.app.Usage)
	r.heading("SYNOPSIS")
	r.line(`\fBwherry\fR [\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENT\fR]...`)
	r.heading("DESCRIPTION")
	r.paragraphs(m.app.Usage + ".\n\n" + m.sections[0])
	r.heading("COMMANDS")
	r.commands(m.app.Commands)
	r.flags("OPTIONS", m.app.Flags)
	r.heading("OUTPUT AND EXIT STATUS")
	r.paragraphs(m.chapters["What it prints"])
	files, table, _ := strings.Cut(m.chapters["Where things are"], "\n|")
	r.heading("ENVIRONMENT")
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.Contains(cells[1], "`") {
			r.item(inline(strings.TrimSpace(cells[1])), inline(strings.TrimSpace(cells[2])))
		}
	}
	r.heading("FILES")
	r.text(files)
	r.heading("SEE ALSO")
	var pages []string
	for _, c := range m.app.Commands {
		if !c.Hidden {
			pages = append(pages, fmt.Sprintf(`\fB%s\fR(1)`, escaped(program+"-"+c.Name)))
		}
	}
	r.line(strings.Join(pages, ",\n"))
	return r.String()
}
