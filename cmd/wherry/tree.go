package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/mattn/go-runewidth"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
)

// treeImage is an image of images --tree: its names, and below it its platforms.
type treeImage struct {
	names     []string // sorted; "<untagged>" if there is none
	tagged    bool
	image     *layout.Image
	platforms []layout.PlatformInfo
}

func runTree(ctx context.Context, e *env, store *layout.Store, images []listedImage) error {
	tree, err := treeImages(ctx, e, store, images)
	if err != nil {
		return err
	}
	e.Styled = e.colours()
	w := treeWriter{w: &e.Out, colours: e.Styled}
	w.first, w.columns = fitTree(firstColumn(tree), e.columns())
	w.write(tree)
	return nil
}

// label is what to call the image by in a note.
func (t *treeImage) label() string {
	if t.tagged {
		return t.names[0]
	}
	return shortID(t.image.Descriptor().Digest.String())
}

// treeImages puts the names of one image together: in the order of the names, and
// what has none comes last.
func treeImages(ctx context.Context, e *env, store *layout.Store, images []listedImage) ([]*treeImage, error) {
	var all []*treeImage
	var entries []*layout.Image
	known := map[v1.Hash]*treeImage{}
	for _, img := range images {
		t := known[img.Descriptor().Digest]
		if t == nil {
			t = &treeImage{image: img.Image}
			known[img.Descriptor().Digest] = t
			all, entries = append(all, t), append(entries, img.Image)
		}
		if img.Name() != "" {
			t.names, t.tagged = append(t.names, printable(familiarString(img.Name()))), true
		}
	}
	platforms, err := store.PlatformsOf(ctx, entries)
	if err != nil {
		return nil, err
	}
	for i, t := range all {
		slices.Sort(t.names)
		if !t.tagged {
			t.names = []string{"<untagged>"}
		}
		if err := platforms[i].Err; err != nil {
			e.say("note: the platforms of %s can't be read: %s\nhint: %s check --repair", t.label(), printable(err.Error()), program)
		}
		t.platforms = platforms[i].Platforms
	}
	slices.SortStableFunc(all, func(a, b *treeImage) int {
		if a.tagged != b.tagged {
			if a.tagged {
				return -1
			}
			return 1
		}
		return strings.Compare(a.names[0], b.names[0])
	})
	return all, nil
}

// treeColumn is a column of the tree beside the first one.
type treeColumn struct {
	title string
	width int
	right bool
}

const treeGap = 3 // between two columns

// treeColumns are docker's, without a mark for what containers use: EXTRA says
// which platforms the store has.
func treeColumns() []treeColumn {
	return []treeColumn{
		{"ID", 12, false}, {"DISK USAGE", 10, true}, {"CONTENT SIZE", 12, true}, {"EXTRA", len("present"), false},
	}
}

// fitTree leaves columns out until the lines are no longer than width (0: any), the
// first column having 12 or what it needs; which platforms there are is told in any case.
func fitTree(first, width int) (int, []treeColumn) {
	columns := treeColumns()
	if width == 0 {
		return first, columns
	}
	room := func() int {
		left := width
		for _, c := range columns {
			left -= c.width + treeGap
		}
		return left
	}
	for _, title := range []string{"CONTENT SIZE", "DISK USAGE", "ID"} {
		if room() < min(first, 12) {
			columns = slices.DeleteFunc(columns, func(c treeColumn) bool { return c.title == title })
		}
	}
	return min(first, max(room(), 0)), columns
}

// firstColumn is as wide as the widest in it.
func firstColumn(images []*treeImage) int {
	widest := len("IMAGE")
	for _, t := range images {
		for _, name := range t.names {
			widest = max(widest, runewidth.StringWidth(name))
		}
		for i, p := range t.platforms {
			widest = max(widest, runewidth.StringWidth(treeBranch(i, t.platforms)+treePlatform(p)))
		}
	}
	return widest
}

// The escape sequences of the tree, as docker has them.
const (
	bold     = "\x1b[1m"
	boldBlue = "\x1b[1;34m"
	faint    = "\x1b[2m"
	upright  = "\x1b[0m"
)

// treeWriter prints the images in columns.
type treeWriter struct {
	w       io.Writer
	first   int // width of the first column
	columns []treeColumn
	colours bool
}

func (w treeWriter) write(images []*treeImage) {
	titles := treeRow{name: "IMAGE", cells: map[string]string{}, nameStyle: bold, style: bold}
	for _, c := range w.columns {
		titles.cells[c.title] = c.title
	}
	w.row(titles)
	for _, t := range images {
		style := boldBlue
		if !t.tagged {
			style = faint
		}
		last := len(t.names) - 1
		for _, name := range t.names[:last] {
			fmt.Fprintln(w.w, w.styled(style, name))
		}
		row := newTreeRow(t.names[last], t.image.Descriptor(), t.image.Size(), "")
		row.nameStyle = style
		w.row(row)
		for i, p := range t.platforms {
			row := newTreeRow(treeBranch(i, t.platforms)+treePlatform(p), p.Descriptor, p.Size, treeMark(p))
			if !p.Present {
				row.nameStyle, row.style = faint, faint
			}
			w.row(row)
		}
		fmt.Fprintln(w.w)
	}
}

func treeBranch(i int, of []layout.PlatformInfo) string {
	if i == len(of)-1 {
		return "└─ "
	}
	return "├─ "
}

func treePlatform(p layout.PlatformInfo) string {
	if p.Platform.OS == "" {
		return "unknown"
	}
	return printable(platform.Format(p.Platform))
}

// treeMark says whether the store has the platform: all of it, a part or nothing.
func treeMark(p layout.PlatformInfo) string {
	switch {
	case p.Present:
		return "present"
	case p.Size > 0:
		return "partial"
	}
	return ""
}

// treeRow is a line of the tree: what stands in the first column, and the other
// cells by their column's title.
type treeRow struct {
	name             string
	cells            map[string]string
	nameStyle, style string
}

func newTreeRow(name string, d v1.Descriptor, size int64, extra string) treeRow {
	return treeRow{name: name, cells: map[string]string{
		"ID": shortID(d.Digest.String()), "DISK USAGE": humanSize(size), "CONTENT SIZE": humanSize(size), "EXTRA": extra,
	}}
}

// row prints one, without spaces at its end. A name that doesn't fit has a line of
// its own.
func (w treeWriter) row(r treeRow) {
	var line, cells strings.Builder
	line.WriteString(w.styled(r.nameStyle, r.name))
	used := runewidth.StringWidth(r.name)
	if used > w.first {
		line.WriteString("\n")
		used = 0
	}
	for _, c := range w.columns {
		cell := r.cells[c.title]
		pad := strings.Repeat(" ", max(0, c.width-len(cell)))
		cells.WriteString(strings.Repeat(" ", treeGap))
		if c.right {
			cells.WriteString(pad + cell)
		} else {
			cells.WriteString(cell + pad)
		}
	}
	if text := strings.TrimRight(cells.String(), " "); text != "" {
		line.WriteString(strings.Repeat(" ", w.first-used))
		line.WriteString(w.styled(r.style, text))
	}
	fmt.Fprintln(w.w, line.String())
}

func (w treeWriter) styled(style, text string) string {
	if !w.colours || style == "" {
		return text
	}
	return style + text + upright
}
