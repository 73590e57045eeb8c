package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/docker/cli/templates"
	"github.com/urfave/cli/v2"
)

func formatFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "format",
		Usage: "Format output using a custom template:\n" +
			"'table':            Print output in table format with column headers (default)\n" +
			"'table TEMPLATE':   Print output in table format using the given Go template\n" +
			"'json':             Print in JSON format\n" +
			"'TEMPLATE':         Print output using the given Go template",
	}
}

func quietFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: usage}
}

func platformsFlag(usage string) cli.Flag {
	return &cli.StringSliceFlag{
		Name: "platform", Usage: usage + "\n(a comma-separated list of \"os[/arch[/variant]]\", as \"linux/amd64,linux/arm64\")",
	}
}

// byName puts flags in the order that help has them in.
func byName(flags []cli.Flag) []cli.Flag {
	slices.SortFunc(flags, func(a, b cli.Flag) int { return cmp.Compare(a.Names()[0], b.Names()[0]) })
	return flags
}

// listing prints rows as docker's list commands do: a table, JSON objects, or
// whatever a Go template makes of them.
type listing struct {
	Format string            // as --format has it; empty: "table"
	Quiet  bool              // a table of IDs only, without its header
	Table  string            // the template of "table"
	Raw    string            // that of "raw"; empty: there is none
	Header map[string]string // column titles by the rows' field names
}

// text returns the template and whether its output is a table under a header.
func (l listing) text() (text string, table bool) {
	switch custom, isTable := strings.CutPrefix(l.Format, "table"); {
	case l.Format == "json":
		return "{{json .}}", false
	case l.Format == "raw" && l.Raw != "":
		return l.Raw, false
	case l.Format != "" && !isTable:
		return unescaped(l.Format), false
	case strings.TrimSpace(custom) != "":
		return unescaped(strings.Trim(custom, " ")), true
	case l.Quiet:
		return "{{.ID}}", false
	}
	return l.Table, true
}

// fields are the names a template may use.
func (l listing) fields() []string {
	return slices.Sorted(maps.Keys(l.Header))
}

// writeList prints one line per row.
func writeList[T any](w io.Writer, l listing, rows []T) error {
	text, table := l.text()
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, row := range rows {
		if err := t.Execute(&b, row); err != nil {
			return &badFormatError{err: err, fields: l.fields()}
		}
		b.WriteByte('\n')
	}
	if !table {
		_, err := b.WriteTo(w)
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := t.Funcs(templates.HeaderFunctions).Execute(tw, l.Header); err != nil {
		return &badFormatError{err: err, fields: l.fields()}
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
		return &badFormatError{err: err}
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

func parseTemplate(text string) (*template.Template, error) {
	t, err := templates.New("--format").Parse(text)
	if err != nil {
		return nil, &badFormatError{err: err}
	}
	return t, nil
}

// badFormatError is a --format that is no template, or names what there is not.
type badFormatError struct {
	err    error
	fields []string // what there is, where it is known
}

func (e *badFormatError) Error() string { return e.err.Error() }
func (e *badFormatError) Unwrap() error { return e.err }

// unescaped lets a shell's users write \t and \n.
func unescaped(format string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
}
