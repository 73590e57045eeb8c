package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// candidate is what a word may become.
type candidate struct {
	value, about string
}

// completion are the candidates for the word at the end of a line.
type completion struct {
	list []candidate
	adds string // "" a blank, "nospace" nothing, "files" or "folders": the shell's own candidates
}

// completer knows a line up to the word that is being typed. What a word may be
// it learns from the same texts that --help prints: an operand's kind from the
// usage line, a flag's values from its description.
type completer struct {
	env    *env
	app    *cli.App
	parser argParser
	word   string
}

func newCompleter(e *env, words []string, word string) *completer {
	app := newApp(e)
	c := &completer{env: e, app: app, word: word, parser: argParser{
		global: app.Flags, commands: app.Commands, words: words, partial: true,
	}}
	_ = c.parser.read() // it refuses nothing of a partial line
	for _, arg := range c.parser.globalArgs {
		if dir, ok := strings.CutPrefix(arg, "--store="); ok {
			e.StoreDir = e.expand(dir)
		}
		if dir, ok := strings.CutPrefix(arg, "--config="); ok {
			e.ConfigDir = e.expand(dir)
		}
	}
	return c
}

// expand is what the shell would have done to a path by now.
func (e *env) expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(e.Getenv("HOME"), rest)
	}
	return path
}

func (c *completer) complete() completion {
	p := &c.parser
	if p.pending != nil {
		return c.flagValue(p.pending, "", c.word)
	}
	if strings.HasPrefix(c.word, "-") && !p.ended {
		name, value, given := strings.Cut(strings.TrimLeft(c.word, "-"), "=")
		if !given {
			return c.flags()
		}
		if f, _ := p.find(name); f != nil && takesValue(f) {
			return c.flagValue(f, strings.TrimSuffix(c.word, value), value)
		}
		return completion{}
	}
	if len(p.commands) > 0 {
		return c.subcommands()
	}
	path := p.line.path
	kind, repeated := operandKind(path[len(path)-1].ArgsUsage, len(p.operands))
	found := c.values(kind, "", c.word)
	if repeated {
		found.list = slices.DeleteFunc(found.list, func(v candidate) bool { return slices.Contains(p.operands, v.value) })
	}
	return found
}

// offer keeps the candidates that begin with what stands after head, and puts
// head in front of them.
func offer(list []candidate, head, typed string) completion {
	var kept []candidate
	for _, v := range list {
		if strings.HasPrefix(v.value, typed) {
			kept = append(kept, candidate{head + v.value, v.about})
		}
	}
	return completion{list: kept}
}

func plainCandidates(values ...string) []candidate {
	list := make([]candidate, len(values))
	for i, v := range values {
		list[i].value = v
	}
	return list
}

func (c *completer) subcommands() completion {
	var list []candidate
	for _, sub := range c.parser.commands {
		if !sub.Hidden {
			list = append(list, candidate{sub.Name, sub.Usage})
		}
	}
	if len(c.parser.line.path) == 0 && !c.parser.line.help {
		list = append(list, candidate{"help", "Help about a command"})
	}
	return offer(list, "", c.word)
}

// flags offers the long names; those that were given and take no second value are left out.
func (c *completer) flags() completion {
	p := &c.parser
	all := p.global
	if n := len(p.line.path); n > 0 {
		all = append(slices.Clone(p.line.path[n-1].Flags), all...)
	}
	var list []candidate
	for _, f := range all {
		doc, ok := f.(cli.DocGenerationFlag)
		if visible, is := f.(cli.VisibleFlag); !ok || is && !visible.IsVisible() {
			continue
		}
		about, _, _ := strings.Cut(doc.GetUsage(), "\n")
		for _, name := range f.Names() {
			if dashed := "-" + name; len(name) == 1 && dashed == c.word {
				return completion{list: []candidate{{dashed, about}}} // whole as it is
			}
		}
		if _, many := f.(*cli.StringSliceFlag); many || !c.given(f) {
			list = append(list, candidate{"--" + f.Names()[0], about})
		}
	}
	return offer(append(list, candidate{"--help", "Print usage"}), "", c.word)
}

func (c *completer) given(f cli.Flag) bool {
	name := "--" + f.Names()[0]
	return slices.ContainsFunc(slices.Concat(c.parser.globalArgs, c.parser.commandArgs), func(arg string) bool {
		return arg == name || strings.HasPrefix(arg, name+"=")
	})
}
