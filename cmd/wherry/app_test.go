package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// testEnv is an environment without terminal, variables or configuration, and
// with a store of its own.
func testEnv(t *testing.T) (e *env, stdout, stderr *bytes.Buffer) {
	t.Helper()
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	dir := t.TempDir()
	vars := map[string]string{
		"WHERRY_STORE": filepath.Join(dir, "store"), "DOCKER_CONFIG": filepath.Join(dir, "docker"),
		"XDG_CONFIG_HOME": filepath.Join(dir, "config"),
	}
	return &env{
		Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr,
		Getenv: func(name string) string { return vars[name] },
	}, stdout, stderr
}

// Every command stands in the file of its name, and every file that makes a
// command is in the list.
func TestCommandsAndFiles(t *testing.T) {
	var listed []string
	for _, c := range commands(&env{}) {
		listed = append(listed, c.Name)
		source, err := os.ReadFile(c.Name + ".go")
		if err != nil {
			t.Error(err)
			continue
		}
		constructor := "func " + constructorOf(c.Name)
		if !bytes.Contains(source, []byte(constructor)) {
			t.Errorf("%s.go has no %s", c.Name, constructor)
		}
	}
	walk(groups(&env{}), nil, func(path []*cli.Command) { listed = append(listed, path[len(path)-1].Name) })
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".go")
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		constructor := "\nfunc " + constructorOf(name)
		if bytes.Contains(source, []byte(constructor)) && !slices.Contains(listed, name) {
			t.Errorf("%s makes a command that is not in the list", file)
		}
	}
}

// constructorOf a command: prune-remote's is newPruneRemoteCommand.
func constructorOf(name string) string {
	words := strings.Split(name, "-")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return "new" + strings.Join(words, "") + "Command("
}

// The rules for what a person reads hold for every command.
func TestCommandTexts(t *testing.T) {
	app := newApp(&env{})
	same := map[string]string{}
	walk(app.Commands, nil, func(path []*cli.Command) {
		c := path[len(path)-1]
		// One text is one command: that is how help finds its other names.
		if first, ok := same[c.Usage]; ok && first != fmt.Sprint(flagNames(c)) {
			t.Errorf("two commands say %q, but their flags differ: %s and %s", c.Usage, first, flagNames(c))
		}
		same[c.Usage] = fmt.Sprint(flagNames(c))
		if c.Usage == "" || strings.HasSuffix(c.Usage, ".") {
			t.Errorf("%s: usage %q", c.Name, c.Usage)
		}
		if !c.HideHelp || !c.HideHelpCommand || c.OnUsageError == nil {
			t.Errorf("%s: urfave's own help is not switched off", c.Name)
		}
		for _, f := range c.Flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if !ok || doc.GetUsage() == "" {
				t.Errorf("%s: flag %q says nothing", c.Name, f.Names())
			}
		}
		if !slices.IsSortedFunc(c.Flags, func(a, b cli.Flag) int { return strings.Compare(a.Names()[0], b.Names()[0]) }) {
			t.Errorf("%s: the flags are not in alphabetical order", c.Name)
		}
		var help bytes.Buffer
		if err := writeHelp(&help, app, path); err != nil {
			t.Error(err)
		}
		for i, line := range strings.Split(help.String(), "\n") {
			if len(line) > 130 || strings.TrimRight(line, " ") != line {
				t.Errorf("%s: line %d of the help is too long or ends in spaces: %q", c.Name, i+1, line)
			}
		}
	})
}

func TestHelpHasDockersShape(t *testing.T) {
	e, stdout, stderr := testEnv(t)
	if code := run(context.Background(), e, []string{"wherry", "image", "ls", "x", "--help"}); code != exitDone {
		t.Fatalf("exit code %d, stderr %s", code, stderr)
	}
	for _, want := range []string{
		"Usage:  wherry image ls [OPTIONS] [REPOSITORY[:TAG]]\n\nList images\n\n",
		"Aliases:\n  wherry images, wherry image ls, wherry image list\n\nOptions:\n",
		"\n  -a, --all             Show all images",
		"\n      --digests         Show digests\n",
		"\n  -f, --filter filter   Filter output",
		"\n      --no-trunc        Don't truncate output\n",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
}

// Whatever goes wrong, nothing is on stdout, and stderr has the error and a hint.
func TestFailuresPrintNothingOnStdout(t *testing.T) {
	for typed, want := range map[string]struct {
		code   int
		stderr string
	}{
		"imagse":                            {exitUsage, "wherry: \"imagse\" is not a wherry command\nhint: wherry images\n"},
		"run -it alpine":                    {exitUsage, "wherry: \"run\" needs docker's engine: wherry has images, no containers\nhint: run 'wherry --help'\n"},
		"rm x":                              {exitUsage, "wherry: \"rm\" needs docker's engine: wherry has images, no containers\nhint: wherry rmi\n"},
		"-H tcp://far:2375 images":          {exitUsage, "wherry: --host tcp://far:2375: wherry talks to no engine, it works on the store of this machine\nhint: run 'wherry --help'\n"},
		"--context far images":              {exitUsage, "wherry: --context far: wherry talks to no engine, it works on the store of this machine\nhint: run 'wherry --help'\n"},
		"images -D":                         {exitUsage, "wherry: unknown shorthand flag: \"D\" in -D\nhint: run 'wherry images --help'\n"},
		"images a b":                        {exitUsage, "wherry: \"wherry images\" requires at most 1 argument, got 2\nhint: run 'wherry images --help'\n"},
		"tag a":                             {exitUsage, "wherry: \"wherry tag\" requires 2 arguments, got 1\nhint: run 'wherry tag --help'\n"},
		"rmi":                               {exitUsage, "wherry: \"wherry rmi\" requires at least 1 argument, got 0\nhint: run 'wherry rmi --help'\n"},
		"image rm":                          {exitUsage, "wherry: \"wherry image rm\" requires at least 1 argument, got 0\nhint: run 'wherry image rm --help'\n"},
		"images --human":                    {exitUsage, "wherry: unknown flag: --human\nhint: run 'wherry images --help'\n"},
		"images --no-trunc=maybe":           {exitUsage, "wherry: invalid boolean value \"maybe\" for -no-trunc: parse error\nhint: run 'wherry images --help'\n"},
		"images -f nonsense=1":              {exitUsage, "wherry: unknown filter \"nonsense\": there are before, dangling, label, label!, reference, since and until\nhint: run 'wherry images --help'\n"},
		"images --format {{.Nonsense":       {exitUsage, "wherry: template: --format:1: unclosed action\n"},
		"inspect alpine":                    {exitFailed, "wherry: no such image: \"alpine\"\nhint: wherry pull alpine:latest\n"},
		"inspect sha256:abcdef":             {exitFailed, "wherry: no such image: \"sha256:abcdef\"\nhint: wherry images\n"},
		"rmi alpine:3.20":                   {exitFailed, "wherry: no such image: \"alpine:3.20\"\nhint: wherry images\n"},
		"tag alpine Upper:x":                {exitFailed, ""},
		"load -i /no/such/file":             {exitFailed, "wherry: open /no/such/file: no such file or directory\n"},
		"login --password-stdin localhost":  {exitUsage, "wherry: the --password-stdin option requires --username to be set\nhint: run 'wherry login --help'\n"},
		"login -u me localhost":             {exitFailed, "wherry: cannot perform an interactive login from a non-TTY device\nhint: wherry login -u me --password-stdin localhost < FILE\n"},
		"login -u me -p \x1b[1m --no-such":  {exitUsage, "wherry: unknown flag: --no-such\nhint: run 'wherry login --help'\n"},
		"pull localhost:1/x@sha256:\x1b[1m": {exitFailed, ""},
	} {
		e, stdout, stderr := testEnv(t)
		code := run(context.Background(), e, append([]string{"wherry"}, strings.Fields(typed)...))
		if code != want.code || want.stderr != "" && stderr.String() != want.stderr {
			t.Errorf("%q: exit code %d, stderr %q; want %d, %q", typed, code, stderr, want.code, want.stderr)
		}
		if stdout.Len() > 0 || strings.Contains(stderr.String(), "\x1b") {
			t.Errorf("%q: stdout %q, stderr %q", typed, stdout, stderr)
		}
	}
}

// What docker's scripts say of the engine before the command is taken, with a word that it does nothing.
func TestDockersGlobalOptions(t *testing.T) {
	e, _, stderr := testEnv(t)
	line := "wherry -D -l info --tlsverify --tlscacert ca.pem -H unix:///var/run/docker.sock -c default --config /none images"
	if code := run(context.Background(), e, strings.Fields(line)); code != exitDone {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	for _, name := range []string{"debug", "log-level", "tlsverify", "tlscacert", "host", "context"} {
		if n := strings.Count(stderr.String(), "note: --"+name+" has no effect"); n != 1 {
			t.Errorf("%d notes about --%s in:\n%s", n, name, stderr)
		}
	}
	if n := strings.Count(stderr.String(), "\n"); n != 6 {
		t.Errorf("%d lines instead of 6:\n%s", n, stderr)
	}
}

func flagNames(c *cli.Command) []string {
	var names []string
	for _, f := range c.Flags {
		names = append(names, f.Names()...)
	}
	return names
}
