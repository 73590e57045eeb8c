//go:build linux

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"

	"github.com/wherry-oci/wherry/build"
)

// shownFiles is how many of the files that were sent the page of a report names.
const shownFiles = 100

//go:embed report.html
var reportHTML string

// reportPage is what a report shows, in words.
type reportPage struct {
	Title, When, Platforms, Took, Received, Size string
	Ran, Cached                                  int
	Error                                        string
	Path                                         []reportRow
	Compared                                     string
	Steps                                        []reportRow
	Files                                        []string
	MoreFiles                                    int
	Images                                       []reportImage
	Program                                      string
}

type reportRow struct {
	Name, Class, Took, Share, Bytes string
	Bars                            []reportBar
	Why                             []string
}

// reportBar is a place on the timeline, in hundredths of its length.
type reportBar struct{ Left, Width float64 }

type reportImage struct {
	Platform, Digest, Size string
	Layers                 []reportLayer
}

type reportLayer struct {
	Digest, By, Size string
	Width            float64
}

// checkReport finds out before the build what would fail after it.
func checkReport(path string) error {
	if path == "" {
		return nil
	}
	switch dir := filepath.Dir(path); {
	case !isFolder(dir):
		return fmt.Errorf("report: there is no folder %q", dir)
	case isFolder(path):
		return fmt.Errorf("report: %q is a folder", path)
	}
	return nil
}

// writeReport writes the page of a build.
func writeReport(path string, r *build.Report, title string) error {
	page, err := template.New("report").Parse(reportHTML)
	if err != nil {
		return err
	}
	err = writeFile(path, func(w io.Writer) error { return page.Execute(w, newReportPage(r, title)) })
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// title is what a report is about: the result's name, or else the context.
func (b *builder) title() string {
	if len(b.request.Names) > 0 {
		return "Build of " + reference.FamiliarString(b.request.Names[0])
	}
	from := b.request.Context
	if u, err := url.Parse(from); err == nil && u.Scheme != "" {
		u.User, u.RawQuery = nil, "" // they may hold a password
		from = u.String()
	}
	if whole, err := filepath.Abs(from); err == nil && isFolder(whole) {
		from = filepath.Base(whole)
	}
	return "Build of " + from
}

func newReportPage(r *build.Report, title string) *reportPage {
	p := &reportPage{
		Title: title, When: r.Started.Format("2 January 2006, 15:04:05 MST"), Took: tookText(r.Ended.Sub(r.Started)),
		Compared: "No build of this context and Dockerfile before this one is known here, so what broke the cache is not known either.",
		Files:    allPrintable(r.Files[:min(len(r.Files), shownFiles)]), Program: versionLine(),
	}
	if !r.Previous.IsZero() {
		p.Compared = "What broke the cache is told against the build that ended on " + r.Previous.Local().Format("2 January 2006, 15:04:05") + "."
	}
	p.MoreFiles = r.Sent - len(p.Files)
	if r.Err != nil {
		p.Error = failureText(r.Err)
	}
	p.addSteps(r)
	p.addImages(r)
	return p
}

// failureText is what the terminal shows of a failed build.
func failureText(err error) string {
	var b strings.Builder
	if failed, ok := errors.AsType[*build.Error](err); ok {
		for _, line := range failed.Output {
			fmt.Fprintln(&b, printable(line))
		}
		b.Write(harmless([]byte(failed.Excerpt)))
	}
	fmt.Fprint(&b, err)
	return b.String()
}

func (p *reportPage) addSteps(r *build.Report) {
	path := r.CriticalPath()
	var received int64
	for i, s := range r.Steps {
		if len(s.Spans) == 0 {
			continue
		}
		received += s.Received
		row := reportRow{Name: printable(s.Name), Took: tookText(s.Took()), Bytes: bytesText(s), Why: allPrintable(s.Causes)}
		switch onPath := slices.Contains(path, i); {
		case s.Error != "":
			row.Class = "failed"
		case s.Stopped:
			row.Class, row.Took = "stopped", row.Took+", stopped"
		case s.Cached:
			row.Class, row.Took = "cached", "cached"
			p.Cached++
		case onPath:
			row.Class = "path"
		}
		if !s.Cached {
			p.Ran++
		}
		for _, span := range s.Spans {
			row.Bars = append(row.Bars, bar(r, span))
		}
		p.Steps = append(p.Steps, row)
		if slices.Contains(path, i) {
			row.Share = fmt.Sprintf("%.0f %%", float64(s.Took())*100/float64(max(r.Ended.Sub(r.Started), 1)))
			p.Path = append(p.Path, row)
		}
	}
	p.Received = sizeText(received)
}

func allPrintable(list []string) []string {
	shown := make([]string, len(list))
	for i, s := range list {
		shown[i] = printable(s)
	}
	return shown
}

// bar is where a span stands in the whole build.
func bar(r *build.Report, s build.Span) reportBar {
	whole := max(r.Ended.Sub(r.Started), time.Nanosecond)
	percent := func(d time.Duration) float64 {
		return min(100, max(0, float64(d.Microseconds())*100/float64(whole.Microseconds()+1)))
	}
	left := percent(s.Start.Sub(r.Started))
	return reportBar{Left: left, Width: min(percent(s.End.Sub(s.Start)), 100-left)}
}

func bytesText(s build.ReportStep) string {
	var parts []string
	if s.Received > 0 {
		parts = append(parts, "in "+sizeText(s.Received))
	}
	if s.Made >= 0 {
		parts = append(parts, "made "+sizeText(s.Made))
	}
	if s.Sent > 0 {
		parts = append(parts, "out "+sizeText(s.Sent))
	}
	return strings.Join(parts, ", ")
}

func (p *reportPage) addImages(r *build.Report) {
	var platforms []string
	var whole int64
	for _, image := range r.Images {
		var sum, largest int64
		for _, l := range image.Layers {
			sum += l.Size
			largest = max(largest, l.Size)
		}
		shown := reportImage{Platform: image.Platform, Digest: image.Digest.String(), Size: sizeText(sum)}
		for _, l := range image.Layers {
			by := l.CreatedBy
			if by == "" {
				by = l.Digest.String()
			}
			shown.Layers = append(shown.Layers, reportLayer{
				Digest: l.Digest.String(), By: printable(by), Size: sizeText(l.Size), Width: float64(l.Size) * 100 / float64(max(largest, 1)),
			})
		}
		p.Images = append(p.Images, shown)
		whole += sum
		if image.Platform != "" {
			platforms = append(platforms, image.Platform)
		}
	}
	p.Platforms = strings.Join(platforms, ", ")
	if len(r.Images) > 0 {
		p.Size = sizeText(whole)
	}
}

func sizeText(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// tookText is a duration as people say it: "40 ms", "1.25 s", "12.3 s", "3 min 20 s".
func tookText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
