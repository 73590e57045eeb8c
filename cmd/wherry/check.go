package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/wherry-oci/wherry/layout"
)

type checkOptions struct {
	Refs   []string // empty: the whole store
	Deep   bool
	Repair bool
	Quiet  bool
	Format string
}

func newCheckCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "Verify every name, manifest and blob of the store, or of some images",
		ArgsUsage: "[IMAGE...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "deep", Usage: "Also unpack every layer and compare its content with the config's diff IDs"},
			formatFlag(),
			quietFlag("Print nothing but the error, if there is one"),
			&cli.BoolFlag{Name: "repair", Usage: "Download again what is broken, and drop what no registry has"},
		},
		Action: func(c *cli.Context) error {
			return runCheck(c.Context, e, checkOptions{
				Refs: c.Args().Slice(), Deep: c.Bool("deep"), Repair: c.Bool("repair"), Quiet: c.Bool("quiet"), Format: c.String("format"),
			})
		},
	}
}

// runCheck says on stderr what is broken, and on stdout that all is whole. The
// list that --format asks for is data: it goes to stdout in either case.
func runCheck(ctx context.Context, e *env, o checkOptions) error {
	store, err := e.openStore()
	if err != nil {
		return err
	}
	var report *layout.Report
	var done []layout.Mended
	show := newCheckProgress(e, o.Quiet)
	options := layout.CheckOptions{Deep: o.Deep, Progress: show.update}
	if len(o.Refs) > 0 {
		options.Refs = o.Refs
	}
	if o.Repair {
		report, done, err = e.repair(ctx, store, options)
	} else {
		report, err = store.Check(ctx, options)
	}
	show.close()
	if !o.Quiet && o.Format == "" {
		tellMended(e, done)
	}
	if err != nil {
		return errors.Join(concerning("check", firstOf(o.Refs...), err), e.flush())
	}
	switch {
	case o.Format != "":
		if err := writeList(&e.Out, problemListing(o.Format), problemRows(report.Problems)); err != nil {
			return err
		}
	case !o.Quiet:
		sayProblems(e, report)
	}
	if broken := report.Broken(); len(broken) > 0 {
		// What was asked for as data, and what was done, is told all the same.
		return errors.Join(withHint(brokenError(broken), "%s", mendingCommand(o, store.Dir(), broken)), e.flush())
	}
	if o.Format == "" && !o.Quiet {
		fmt.Fprintf(&e.Out, "%s, %s (%s): all whole\n",
			counted(report.Names, "image"), counted(report.Blobs, "blob"), humanSize(report.Bytes))
	}
	return nil
}

func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// problemRow is a line of check --format.
type problemRow struct {
	Broken bool
	Detail string
	Digest string
	Images []string
	Kind   string
	Part   string
	Path   string
	Size   int64
}

func problemListing(format string) listing {
	return listing{
		Format: format,
		Table:  `{{.Kind}}{{"\t"}}{{.Part}}{{"\t"}}{{.Path}}{{"\t"}}{{range $i, $n := .Images}}{{if $i}}, {{end}}{{$n}}{{end}}`,
		Header: map[string]string{
			"Broken": "BROKEN", "Detail": "DETAIL", "Digest": "DIGEST", "Images": "IMAGES", "Kind": "PROBLEM", "Part": "PART",
			"Path": "PATH", "Size": "SIZE",
		},
	}
}

func problemRows(problems []layout.Problem) []problemRow {
	rows := make([]problemRow, len(problems))
	for i, p := range problems {
		rows[i] = problemRow{
			Broken: p.Kind.Broken(), Kind: string(p.Kind), Part: p.Part, Path: p.Path, Size: p.Size, Images: []string{},
		}
		if p.Digest != (v1.Hash{}) {
			rows[i].Digest = p.Digest.String()
		}
		if p.Err != nil {
			rows[i].Detail = p.Err.Error()
		}
		for _, s := range p.Images {
			rows[i].Images = append(rows[i].Images, subjectString(s))
		}
	}
	return rows
}

// subjectString is an image as it is typed, and which platform of it.
func subjectString(s layout.Subject) string {
	text := familiarString(s.Name)
	if text == "" {
		text = shortID(s.ID.String())
	}
	if s.Platform != "" {
		text += " (" + s.Platform + ")"
	}
	return text
}

// sayProblems prints a line for each thing that is broken, and one for each kind
// of what is only worth knowing.
func sayProblems(e *env, r *layout.Report) {
	var garbage, leftover []layout.Problem
	for _, p := range r.Problems {
		switch p.Kind {
		case layout.Garbage:
			garbage = append(garbage, p)
		case layout.Leftover:
			leftover = append(leftover, p)
		case layout.Foreign:
			e.say("note: %s does not belong into an image store", printable(p.Path))
		default:
			e.say("%s", printable(problemLine(p)))
		}
	}
	if len(garbage) > 0 {
		e.say("note: %s needed by no image: %s image prune", weighed(garbage, "blob"), program)
	}
	if len(leftover) > 0 {
		e.say("note: %s of transfers that broke off, for the next pull to go on with: or %s image prune", weighed(leftover, "file"), program)
	}
	if r.Busy {
		e.say("note: what no image needs was not looked for: the store is in use, or another user's")
	}
}

func weighed(list []layout.Problem, thing string) string {
	var size int64
	for _, p := range list {
		size += p.Size
	}
	return fmt.Sprintf("%s (%s)", counted(len(list), thing), humanSize(size))
}

// problemLine says what is broken, and whose it is.
func problemLine(p layout.Problem) string {
	what := p.Path
	if p.Digest != (v1.Hash{}) {
		what = p.Part + " " + p.Digest.String()
	}
	_, missing := errors.AsType[*layout.MissingError](p.Err)
	_, named := errors.AsType[*layout.InvalidError](p.Err)
	wrong, differs := errors.AsType[*layout.DigestError](p.Err)
	system, refused := errors.AsType[*fs.PathError](p.Err)
	switch {
	case p.Err == nil || missing:
	case named:
		what = p.Err.Error()
	case differs && wrong.Got == (v1.Hash{}):
		what += fmt.Sprintf(": it has %d bytes instead of %d", wrong.Bytes, wrong.Size)
	case differs:
		what += ": its digest is " + wrong.Got.String()
	case refused:
		what += ": " + system.Err.Error()
	default:
		what += ": " + p.Err.Error()
	}
	line := string(p.Kind) + ": " + what
	if len(p.Images) > 0 {
		line += ": needed by " + someSubjects(p.Images)
	}
	return line
}

// someSubjects names up to three of them.
func someSubjects(all []layout.Subject) string {
	const most = 3
	var names []string
	for _, s := range all[:min(len(all), most)] {
		names = append(names, subjectString(s))
	}
	text := strings.Join(names, ", ")
	if more := len(all) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// brokenError sums up what check found.
func brokenError(broken []layout.Problem) error {
	var images []layout.Subject
	for _, p := range broken {
		for _, s := range p.Images {
			s.Platform = ""
			if !slices.Contains(images, s) {
				images = append(images, s)
			}
		}
	}
	if len(images) == 0 {
		return fmt.Errorf("%s with no image", counted(len(broken), "problem"))
	}
	return fmt.Errorf("%s with %s: %s", counted(len(broken), "problem"), counted(len(images), "image"), someSubjects(images))
}

// mendingCommand is what to type next.
func mendingCommand(o checkOptions, dir string, broken []layout.Problem) string {
	for _, p := range broken {
		if p.Kind == layout.Unreadable && p.Path != "" {
			return "chmod -R u+rX " + filepath.Join(dir, filepath.FromSlash(p.Path))
		}
	}
	first := broken[0]
	mendable := slices.ContainsFunc(broken, func(p layout.Problem) bool { return p.Kind != layout.Unequal })
	if !o.Repair && mendable {
		return strings.Join(append([]string{program, "check", "--repair"}, o.Refs...), " ")
	}
	if len(first.Images) == 0 {
		return program + " check"
	}
	first.Images[0].Platform = ""
	return program + " rmi " + subjectString(first.Images[0])
}

// checkProgress is one bar on a terminal, and nothing elsewhere.
type checkProgress struct {
	env  *env
	bars *mpb.Progress // nil: nothing is shown
	bar  *mpb.Bar
}

func newCheckProgress(e *env, quiet bool) *checkProgress {
	p := &checkProgress{env: e}
	if quiet || !e.StderrTTY {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(e.Stderr), mpb.WithWidth(barWidth))
	p.bar = p.bars.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name("Checking ")),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
			return fmt.Sprintf(" %8s/%s", humanSize(s.Current), humanSize(s.Total))
		})))
	e.sayThrough(p.bars)
	return p
}

// update is told how much has been read.
func (p *checkProgress) update(read, total int64) {
	if p.bar != nil {
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(read)
	}
}

func (p *checkProgress) close() {
	if p.bars == nil {
		return
	}
	p.bar.Abort(true)
	p.bars.Wait()
	p.env.sayThrough(p.env.Stderr)
}

// damageHint helps where the store's index.json is broken: nothing works then.
func damageHint(err error) string {
	if e, ok := errors.AsType[*layout.InvalidError](err); ok && e.What == "index.json" {
		return program + " check --repair"
	}
	return ""
}
