package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionScripts are what shells source. They only hand the words typed to
// the hidden command below, which knows the commands and the store.
//
//go:embed completions
var completionScripts embed.FS

func newCompletionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "Print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "For the running shell:\n" +
			"  source <(wherry completion bash)\n" +
			"  source <(wherry completion zsh)\n" +
			"  wherry completion fish | source",
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			if !slices.Contains([]string{"bash", "zsh", "fish"}, args[0]) {
				return &usageError{command: commandPath(c), err: fmt.Errorf("no completion for %q: there are bash, zsh and fish", args[0])}
			}
			script, err := completionScripts.ReadFile("completions/wherry." + args[0])
			if err != nil {
				return err
			}
			_, err = e.Out.Write(script)
			return err
		},
	}
}

// newWordsCommand is what the scripts run while somebody types: hidden, silent
// about what goes wrong, and never a change to the store.
//
//	__complete bash LINE WORDBREAKS   the line up to the cursor
//	__complete zsh|fish WORD...       without the program; the last is the one being typed
//
// It prints what the shell is to add (nothing, "files", "folders" or "nospace"),
// then a candidate a line.
func newWordsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "__complete", Usage: "Complete a command line for the scripts of completion", Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) < 2 {
				return nil
			}
			switch shell, words := args[0], args[1:]; shell {
			case "bash":
				e.completeLine(words[0], strings.Join(words[1:], ""))
			default:
				last := len(words) - 1
				e.completeWords(shell, words[:last], words[last])
			}
			return nil
		},
	}
}

// completeWords prints candidates with their descriptions, as zsh's _describe or
// fish take them.
func (e *env) completeWords(shell string, words []string, word string) {
	found := newCompleter(e, words, word).complete()
	fmt.Fprintln(&e.Out, found.adds)
	for _, c := range found.list {
		separator := "\t"
		if shell == "zsh" {
			c.value, separator = strings.ReplaceAll(c.value, ":", `\:`), ":"
		}
		if c.about != "" {
			c.value += separator + c.about
		}
		fmt.Fprintln(&e.Out, c.value)
	}
}

// completeLine prints candidates for bash, which replaces only what follows the
// last of breaks in the word: "localhost:50" is completed by "5000/app:1".
func (e *env) completeLine(line, breaks string) {
	words, quoted := splitLine(line)
	if len(words) < 2 {
		return
	}
	last := len(words) - 1
	word := words[last]
	found := newCompleter(e, words[1:last], word).complete()
	fmt.Fprintln(&e.Out, found.adds)
	kept := 0
	if !quoted {
		kept = strings.LastIndexAny(word, breaks) + 1
	}
	for _, c := range found.list {
		fmt.Fprintln(&e.Out, c.value[kept:])
	}
}

// splitLine reads words as a shell does, as far as quotes and backslashes go. The
// last is the one being typed, perhaps empty; quoted says that its quote is open.
func splitLine(line string) (words []string, quoted bool) {
	var word strings.Builder
	var quote rune
	escaped, inside := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inside = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inside {
				words = append(words, word.String())
				word.Reset()
				inside = false
			}
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	return append(words, word.String()), quote != 0
}
