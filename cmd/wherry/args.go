package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// commandLine is a command line understood: which command, and the same words in
// the one order urfave/cli reads without surprises.
type commandLine struct {
	path    []*cli.Command // the commands typed, outermost first; empty for the bare program
	help    bool           // --help was there, or there is nothing to run
	version bool           // --version before any command
	argv    []string       // program, global flags, commands, their flags as --name=value, --, operands
}

// argParser reads words from left to right the way docker's users type them:
// flags and operands in any order, -abc for -a -b -c, -oFILE for -o FILE, and --
// before operands that begin with a dash.
type argParser struct {
	global   []cli.Flag
	commands []*cli.Command // what the next bare word may name
	line     commandLine
	words    []string // what is left to read
	partial  bool     // the line is still being typed: what makes no sense is passed over
	pending  cli.Flag // the flag at its end that has no value yet
	ended    bool     // -- was there: all that follows are operands
	verbatim bool     // the command takes its words as they are

	globalArgs, commandArgs, operands []string
}

func parseArgs(app *cli.App, args []string) (commandLine, error) {
	p := &argParser{global: app.Flags, commands: app.Commands, words: args[1:]}
	if err := p.read(); err != nil {
		return commandLine{}, err
	}
	line := p.line
	line.argv = append([]string{args[0]}, p.globalArgs...)
	for _, c := range line.path {
		line.argv = append(line.argv, c.Name)
	}
	line.argv = append(line.argv, p.commandArgs...)
	if !p.verbatim {
		line.argv = append(line.argv, "--")
	}
	line.argv = append(line.argv, p.operands...)
	return line, nil
}

func (p *argParser) read() error {
	for len(p.words) > 0 {
		word := p.words[0]
		p.words = p.words[1:]
		var err error
		switch {
		case word == "--" && len(p.commands) == 0:
			p.ended = true
			p.operands, p.words = append(p.operands, p.words...), nil
		case strings.HasPrefix(word, "--") && word != "--":
			err = p.long(word[2:])
		case strings.HasPrefix(word, "-") && len(word) > 1 && word != "--":
			err = p.short(word[1:])
		default:
			err = p.bare(word)
		}
		if err != nil && !p.partial {
			if p.helpAhead() {
				p.line.help = true
				return nil
			}
			return err
		}
	}
	if len(p.commands) > 0 && !p.partial {
		p.line.help = true // "wherry" or "wherry image" alone
	}
	return nil
}

// helpAhead: who asks for help is not told off for the rest of the line.
func (p *argParser) helpAhead() bool {
	return slices.Contains(p.words, "--help")
}

// bare takes a word without a dash: the next command, or an operand.
func (p *argParser) bare(word string) error {
	if len(p.commands) == 0 {
		p.operands = append(p.operands, word)
		return nil
	}
	if word == "help" && len(p.line.path) == 0 {
		p.line.help = true
		return nil
	}
	for _, c := range p.commands {
		if c.HasName(word) {
			p.line.path = append(p.line.path, c)
			p.commands = c.Subcommands
			if c.SkipFlagParsing {
				p.operands, p.words, p.verbatim = p.words, nil, true
			}
			return nil
		}
	}
	err := &unknownCommandError{parent: p.path(), name: word, near: nearest(word, p.commands)}
	if len(p.line.path) == 0 && needsEngine(word) {
		err.engine, err.near = true, ""
		if word == "rm" {
			err.near = "rmi"
		}
	}
	return err
}

func (p *argParser) path() string {
	path := program
	for _, c := range p.line.path {
		path += " " + c.Name
	}
	return path
}

// long takes --name, --name=value or --name value.
func (p *argParser) long(word string) error {
	name, value, given := strings.Cut(word, "=")
	if name == "help" {
		p.line.help = true
		return nil
	}
	if name == "version" && len(p.line.path) == 0 {
		p.line.version = true
		return nil
	}
	f, into := p.find(name)
	if f == nil || len(name) == 1 {
		return p.usage(fmt.Errorf("unknown flag: --%s", name))
	}
	if !given && takesValue(f) {
		if len(p.words) == 0 {
			p.pending = f
			return p.usage(fmt.Errorf("flag needs an argument: --%s", name))
		}
		value, p.words, given = p.words[0], p.words[1:], true
	}
	emit(into, f, value, given)
	return nil
}

// short takes -a, -abc, -oVALUE, -o=VALUE or -o VALUE.
func (p *argParser) short(letters string) error {
	for i, r := range letters {
		name, rest := string(r), letters[i+len(string(r)):]
		if name == "h" && rest == "" {
			if f, _ := p.find(name); f == nil {
				p.line.help = true
				return nil
			}
		}
		if name == "v" && len(p.line.path) == 0 {
			p.line.version = true
			return nil
		}
		f, into := p.find(name)
		if f == nil {
			return p.usage(fmt.Errorf("unknown shorthand flag: %q in -%s", name, letters))
		}
		value, given := strings.CutPrefix(rest, "=")
		switch {
		case !takesValue(f) && !given:
			emit(into, f, "", false)
			continue
		case !takesValue(f), rest != "":
			emit(into, f, value, true)
		case len(p.words) == 0:
			p.pending = f
			return p.usage(fmt.Errorf("flag needs an argument: -%s", name))
		default:
			emit(into, f, p.words[0], true)
			p.words = p.words[1:]
		}
		return nil
	}
	return nil
}

// find looks a flag up in the command, then in the program's global ones: those
// may stand anywhere, docker's own (the hidden ones) only before the command.
func (p *argParser) find(name string) (cli.Flag, *[]string) {
	if n := len(p.line.path); n > 0 {
		for _, f := range p.line.path[n-1].Flags {
			if slices.Contains(f.Names(), name) {
				return f, &p.commandArgs
			}
		}
	}
	for _, f := range p.global {
		visible, ok := f.(cli.VisibleFlag)
		if slices.Contains(f.Names(), name) && (len(p.line.path) == 0 || ok && visible.IsVisible()) {
			return f, &p.globalArgs
		}
	}
	return nil, nil
}

func (p *argParser) usage(err error) error {
	return &usageError{command: p.path(), err: err}
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func emit(into *[]string, f cli.Flag, value string, given bool) {
	arg := "--" + f.Names()[0]
	if given {
		arg += "=" + value
	}
	*into = append(*into, arg)
}

// nearest returns the name of the command that word most likely stands for, or "".
func nearest(word string, commands []*cli.Command) string {
	best, score := "", 0.8
	for _, c := range commands {
		for _, name := range c.Names() {
			if s := smetrics.JaroWinkler(word, name, 0.7, 4); s > score {
				best, score = name, s
			}
		}
	}
	return best
}

// operands checks how many operands a command got; most < 0 means any number.
func operands(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	n := len(args)
	if n >= least && (n <= most || most < 0) {
		return args, nil
	}
	var want string
	switch {
	case most == 0:
		want = "accepts no arguments"
	case least == most:
		want = fmt.Sprintf("requires %d argument%s", least, plural(least))
	case most < 0:
		want = fmt.Sprintf("requires at least %d argument%s", least, plural(least))
	default:
		want = fmt.Sprintf("requires at most %d argument%s", most, plural(most))
	}
	path := commandPath(c)
	return nil, &usageError{command: path, err: fmt.Errorf("%q %s, got %d", path, want, n)}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
