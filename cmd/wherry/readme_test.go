package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/shlex"
)

// Every wherry in a block of the README is a command line that wherry takes, and
// every command has one there.
func TestReadmeCommands(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(&env{})
	var shown []string
	for _, line := range commandsOf(t, string(readme)) {
		parsed, err := parseArgs(app, line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if parsed.help || len(parsed.path) == 0 {
			t.Errorf("%q runs no command", line)
			continue
		}
		shown = append(shown, parsed.path[0].Name)
	}
	for _, c := range commands(&env{}) {
		if !slices.Contains(shown, c.Name) {
			t.Errorf("the README has no example of %s", c.Name)
		}
	}
}

// commandsOf returns the words of each wherry in the fenced blocks.
func commandsOf(t *testing.T, text string) [][]string {
	t.Helper()
	var lines [][]string
	inside := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			inside = !inside
			continue
		}
		if !inside {
			continue
		}
		words, err := shlex.Split(strings.TrimPrefix(line, "$ "))
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		lines = append(lines, wherries(words)...)
	}
	return lines
}

// wherries are the runs of wherry in a line of shell: each to the next redirection or pipe.
func wherries(words []string) [][]string {
	var all [][]string
	for i, word := range words {
		if word != program {
			continue
		}
		line := words[i:]
		if end := slices.IndexFunc(line, func(w string) bool { return w == "|" || w == "<" || w == ">" }); end > 0 {
			line = line[:end]
		}
		all = append(all, line)
	}
	return all
}

// The README names make targets that there are.
func TestReadmeTargets(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllSubmatch(readme, -1)
	if len(found) < 2 {
		t.Fatalf("the README names %d targets", len(found))
	}
	for _, m := range found {
		if !regexp.MustCompile("(?m)^" + string(m[1]) + ":").Match(makefile) {
			t.Errorf("the Makefile has no target %s", m[1])
		}
	}
}
