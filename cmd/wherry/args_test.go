package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// argsApp is a small tree with a flag of every kind.
func argsApp() *cli.App {
	flags := func() []cli.Flag {
		return []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}},
			&cli.BoolFlag{Name: "human", Aliases: []string{"H"}, Value: true},
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}},
			&cli.StringSliceFlag{Name: "tag", Aliases: []string{"t"}},
		}
	}
	return &cli.App{
		Flags: []cli.Flag{&cli.StringFlag{Name: "store"}},
		Commands: []*cli.Command{
			{Name: "build", Flags: flags()},
			{Name: "image", Subcommands: []*cli.Command{{Name: "ls", Aliases: []string{"list"}, Flags: flags()}}},
			{Name: "raw", SkipFlagParsing: true},
		},
	}
}

func TestParseArgs(t *testing.T) {
	for typed, want := range map[string]string{
		"build . -t x":             "build --tag=x -- .",
		"build -t x -t y .":        "build --tag=x --tag=y -- .",
		"build -aq":                "build --all --quiet --",
		"build -aqf Dockerfile .":  "build --all --quiet --file=Dockerfile -- .",
		"build -qfDockerfile .":    "build --quiet --file=Dockerfile -- .",
		"build -f=Dockerfile":      "build --file=Dockerfile --",
		"build --file Dockerfile":  "build --file=Dockerfile --",
		"build --file=a=b":         "build --file=a=b --",
		"build --file=":            "build --file= --",
		"build -f -":               "build --file=- --",
		"build -":                  "build -- -",
		"build -- -t x":            "build -- -t x",
		"build . -- --help":        "build -- . --help",
		"build -t --all .":         "build --tag=--all -- .",
		"build --quiet=false -a":   "build --quiet=false --all --",
		"build -H=false x":         "build --human=false -- x",
		"build --tag a,b":          "build --tag=a,b --",
		"--store /s build .":       "--store=/s build -- .",
		"build . --store /s -a":    "--store=/s build --all -- .",
		"image ls -q x":            "image ls --quiet -- x",
		"image list":               "image ls --",
		"raw -x --help --store /s": "raw -x --help --store /s",
		"build image":              "build -- image",
	} {
		line, err := parseArgs(argsApp(), append([]string{"wherry"}, strings.Fields(typed)...))
		if err != nil {
			t.Errorf("%s: %v", typed, err)
			continue
		}
		if got := strings.Join(line.argv[1:], " "); got != want || line.help || line.version {
			t.Errorf("%s: got %q (help %v, version %v), want %q", typed, got, line.help, line.version, want)
		}
	}
}

func TestParseArgsHelpAndVersion(t *testing.T) {
	for typed, want := range map[string]string{
		"":                         "",
		"--help":                   "",
		"-h":                       "",
		"help":                     "",
		"help build":               "build",
		"build --help":             "build",
		"build -h":                 "build",
		"build . -t x --help":      "build",
		"build --no-such --help":   "build",
		"image":                    "image",
		"image ls x --help":        "image ls",
		"help image ls":            "image ls",
		"--version":                "version",
		"-v":                       "version",
		"--store /s help image ls": "image ls",
	} {
		line, err := parseArgs(argsApp(), append([]string{"wherry"}, strings.Fields(typed)...))
		if err != nil {
			t.Errorf("%s: %v", typed, err)
			continue
		}
		var path []string
		for _, c := range line.path {
			path = append(path, c.Name)
		}
		got := strings.Join(path, " ")
		if line.version {
			got = "version"
		}
		if got != want || !line.help && !line.version {
			t.Errorf("%q: got %q (help %v), want %q", typed, got, line.help, want)
		}
	}
}

func TestParseArgsRefuses(t *testing.T) {
	for typed, want := range map[string]string{
		"biuld .":             `"biuld" is not a wherry command; wherry build`,
		"xyzzy":               `"xyzzy" is not a wherry command; run 'wherry --help'`,
		"image rm x":          `"rm" is not a wherry image command; run 'wherry image --help'`,
		"build --no-such":     `unknown flag: --no-such; run 'wherry build --help'`,
		"build --a":           `unknown flag: --a; run 'wherry build --help'`,
		"image ls -qx":        `unknown shorthand flag: "x" in -qx; run 'wherry image ls --help'`,
		"build . --file":      `flag needs an argument: --file; run 'wherry build --help'`,
		"build . -f":          `flag needs an argument: -f; run 'wherry build --help'`,
		"--no-such build":     `unknown flag: --no-such; run 'wherry --help'`,
		"build -a=x":          "", // the value is for urfave to judge
		"build --file a -- b": "",
	} {
		_, err := parseArgs(argsApp(), append([]string{"wherry"}, strings.Fields(typed)...))
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", typed, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: no error", typed)
			continue
		}
		text, hint, code := describe(err, places{})
		if got := text + "; " + hint; got != want || code != exitUsage {
			t.Errorf("%s: got %q, exit code %d; want %q, %d", typed, got, code, want, exitUsage)
		}
	}
}

// What parseArgs hands to urfave must come out of it as it was typed.
func TestUrfaveTakesTheParsedLine(t *testing.T) {
	app := argsApp()
	var files, tags, args []string
	app.DisableSliceFlagSeparator = true
	app.Commands[0].Action = func(c *cli.Context) error {
		files, tags, args = append(files, c.String("file")), c.StringSlice("tag"), c.Args().Slice()
		return nil
	}
	quietHelp(app.Commands[0])
	line, err := parseArgs(app, []string{"wherry", "build", "ls", "-f=", "-t", "a,b", "--tag=c", "--", "help", "-x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Run(line.argv); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(files, []string{""}) || !slices.Equal(tags, []string{"a,b", "c"}) || !slices.Equal(args, []string{"ls", "help", "-x"}) {
		t.Errorf("file %q, tags %q, operands %q", files, tags, args)
	}
}
