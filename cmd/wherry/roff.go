package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
)

// roff writes a page of the man(7) macros.
type roff struct {
	strings.Builder
	filled bool // the section has text, so that a paragraph needs its macro
}

func (r *roff) title(page, date string) {
	fmt.Fprintf(r, ".TH %s 1 %q %q \"wherry manual\"\n.nh\n.ad l\n", strings.ToUpper(escaped(page)), date, program+" "+readBuildInfo().Version)
}

func (r *roff) name(page, usage string) {
	r.heading("NAME")
	r.line(escaped(page) + ` \- ` + escaped(usage))
}

func (r *roff) heading(text string) {
	fmt.Fprintf(r, ".SH %s\n", text)
	r.filled = false
}

// line writes text that is roff already.
func (r *roff) line(text string) {
	r.WriteString(text + "\n")
	r.filled = true
}

func (r *roff) item(term, text string) {
	fmt.Fprintf(r, ".TP\n%s\n%s\n", term, text)
	r.filled = true
}

// block writes text as it stands.
func (r *roff) block(text string) {
	if r.filled {
		r.WriteString(".PP\n")
	}
	r.WriteString(".RS 4\n.EX\n")
	for line := range strings.SplitSeq(text, "\n") {
		r.WriteString(guarded(escaped(line)) + "\n")
	}
	r.WriteString(".EE\n.RE\n")
	r.filled = true
}

// headline is the beginning of a section that is no sentence: "**save** and **load**:".
var headline = regexp.MustCompile(`^(\*\*[a-z ]+\*\*(, | and )?)+:$`)

// paragraphs writes the README's text without blocks.
func (r *roff) paragraphs(text string) {
	for _, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		p = strings.TrimSpace(p)
		if p == "" || headline.MatchString(p) {
			continue
		}
		if r.filled {
			r.WriteString(".PP\n")
		}
		for line := range strings.SplitSeq(inline(p), "\n") {
			r.WriteString(guarded(line) + "\n")
		}
		r.filled = true
	}
}

// text writes the README's text with its blocks.
func (r *roff) text(text string) {
	for {
		at := blocks.FindStringSubmatchIndex(text)
		if at == nil {
			r.paragraphs(text)
			return
		}
		r.paragraphs(text[:at[0]])
		r.block(text[at[2]:at[3]])
		text = text[at[1]:]
	}
}

func (r *roff) commands(list []*cli.Command) {
	for _, c := range list {
		if !c.Hidden {
			r.item(`\fB`+escaped(c.Name)+`\fR`, guarded(escaped(c.Usage)))
		}
	}
}

func (r *roff) flags(title string, flags []cli.Flag) {
	first := true
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if visible, is := f.(cli.VisibleFlag); !ok || is && !visible.IsVisible() {
			continue
		}
		if first {
			r.heading(title)
			first = false
		}
		names, word, _ := strings.Cut(strings.TrimSpace(flagColumn(f)), " "+valueWord(f))
		term := `\fB` + escaped(names) + `\fR`
		if kind := valueWord(f) + word; kind != "" {
			term += ` \fI` + escaped(kind) + `\fR`
		}
		var usage []string
		for line := range strings.SplitSeq(doc.GetUsage(), "\n") {
			usage = append(usage, guarded(escaped(line)))
		}
		r.item(term, strings.Join(usage, "\n.br\n"))
	}
}

// escaped makes plain text of s: what roff would take for its own is written so
// that it stands on the page.
func escaped(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\e`)
		case c == '-':
			b.WriteString(`\-`)
		case c == '\'':
			b.WriteString(`\(aq`)
		case c == '`':
			b.WriteString(`\(ga`)
		case c == '^':
			b.WriteString(`\(ha`)
		case c == '~':
			b.WriteString(`\(ti`)
		case c > 126:
			fmt.Fprintf(&b, `\[u%04X]`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// guarded keeps a line that begins like a macro from being one.
func guarded(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

// inlineMarks are the marks inside of the README's paragraphs: code, bold, links.
var inlineMarks = regexp.MustCompile("`([^`]+)`|\\*\\*([^*]+)\\*\\*|\\[([^]]+)\\]\\([^)]*\\)")

// inline turns a paragraph of the README into roff.
func inline(text string) string {
	var b strings.Builder
	for {
		at := inlineMarks.FindStringSubmatchIndex(text)
		if at == nil {
			b.WriteString(escaped(text))
			return b.String()
		}
		b.WriteString(escaped(text[:at[0]]))
		switch {
		case at[2] >= 0:
			b.WriteString(`\fB` + escaped(text[at[2]:at[3]]) + `\fR`)
		case at[4] >= 0:
			b.WriteString(`\fB` + escaped(text[at[4]:at[5]]) + `\fR`)
		default:
			b.WriteString(escaped(text[at[6]:at[7]]))
		}
		text = text[at[1]:]
	}
}
