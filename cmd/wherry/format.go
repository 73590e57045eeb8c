package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/docker/cli/templates"
	"github.com/urfave/cli/v2"
)

func formatFlag(into *string) cli.Flag {
	return &cli.StringFlag{
		Name: "format", Destination: into,
		Usage: "Format output using a custom template:\n" +
			"'table':            Print output in table format with column headers (default)\n" +
			"'table TEMPLATE':   Print output in table format using the given Go template\n" +
			"'json':             Print in JSON format\n" +
			"'TEMPLATE':         Print output using the given Go template",
	}
}

// listing prints rows as docker's list commands do: a table, JSON objects, or
// whatever a Go template makes of them.
type listing struct {
	Format string            // as --format has it; empty: "table"
	Quiet  bool              // a table of IDs only, without its header
	Table  string            // the template of "table"
	Header map[string]string // column titles by the rows' field names
}

// text returns the template and whether its output is a table under a header.
func (l listing) text() (text string, table bool) {
	switch custom, isTable := strings.CutPrefix(l.Format, "table"); {
	case l.Format == "json":
		return "{{json .}}", false
	case l.Format != "" && !isTable:
		return unescaped(l.Format), false
	case strings.TrimSpace(custom) != "":
		return unescaped(strings.Trim(custom, " ")), true
	case l.Quiet:
		return "{{.ID}}", false
	}
	return l.Table, true
}

// write prints one line per row.
func writeList[T any](w io.Writer, l listing, rows []T) error {
	text, table := l.text()
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, row := range rows {
		if err := t.Execute(&b, row); err != nil {
			return templateError(err)
		}
		b.WriteByte('\n')
	}
	if !table {
		_, err := b.WriteTo(w)
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := t.Funcs(templates.HeaderFunctions).Execute(tw, l.Header); err != nil {
		return templateError(err)
	}
	fmt.Fprintln(tw)
	if _, err := b.WriteTo(tw); err != nil {
		return err
	}
	return tw.Flush()
}

// writeTemplate prints one value: by format where it is given ("json" or a
// template), else aligned by the template standard.
func writeTemplate(w io.Writer, format, standard string, value any) error {
	text := format
	switch format {
	case "":
		text = standard
	case "json":
		text = "{{json .}}"
	}
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 20, 1, 1, ' ', 0)
	if format != "" {
		err = t.Execute(w, value)
	} else {
		err = t.Execute(tw, value)
	}
	if err != nil {
		return templateError(err)
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

func parseTemplate(text string) (*template.Template, error) {
	t, err := templates.New("--format").Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

func templateError(err error) error {
	return &badFormatError{err}
}

// badFormatError is a --format that is no template, or names what there is not.
type badFormatError struct{ err error }

func (e *badFormatError) Error() string { return e.err.Error() }
func (e *badFormatError) Unwrap() error { return e.err }

// unescaped lets a shell's users write \t and \n.
func unescaped(format string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
}
