package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func newManCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "Write the manual pages into a folder",
		ArgsUsage: "DIR",
		Action: func(c *cli.Context) error {
			args, err := operands(c, 1, 1)
			if err != nil {
				return err
			}
			return runMan(e, args[0])
		},
	}
}

// runMan writes a page for wherry and one for each command, under each of its names.
func runMan(e *env, dir string) error {
	date, err := e.sourceDate()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	m := newManual(newApp(e), date)
	pages := map[string]string{program: m.programPage()}
	walk(m.app.Commands, nil, func(path []*cli.Command) {
		if !slices.ContainsFunc(path, func(p *cli.Command) bool { return p.Hidden }) {
			pages[pageName(m.app, path)] = m.commandPage(path)
		}
	})
	for page, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, page+".1"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pageName is what is typed after man: "wherry-image-ls".
func pageName(app *cli.App, path []*cli.Command) string {
	return strings.ReplaceAll(typedPath(app, path), " ", "-")
}

// sourceDate is the date in the pages' footers: that of SOURCE_DATE_EPOCH, or of
// the commit, so that the same program always writes the same pages.
func (e *env) sourceDate() (string, error) {
	if text := e.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		return time.Unix(seconds, 0).UTC().Format(time.DateOnly), nil
	}
	if date, _, ok := strings.Cut(readBuildInfo().BuildTime, "T"); ok {
		return date, nil
	}
	return "", nil
}
