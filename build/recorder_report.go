//go:build linux

package build

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/wherry-oci/wherry/build/engine"
)

// sizesTime bounds how long a report waits for the engine, which may have gone.
const sizesTime = 30 * time.Second

// finish remembers the build for the next one, and hands the report to who asked for it.
// What goes wrong here is no failure of the build: less is known then.
func (r *recorder) finish(ctx context.Context, c *client.Client, pastFile string, req Request, res *Result, failed error) {
	rep, now := r.report(readPast(pastFile), req.BuildArgs, failed)
	if err := now.write(pastFile); err != nil && failed == nil {
		notify(req.Notice, fmt.Sprintf("the next report will not know what changed: %v", err))
	}
	if req.Report == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sizesTime)
	defer cancel()
	if err := r.addSizes(ctx, c, rep); err != nil {
		notify(req.Notice, fmt.Sprintf("report: no sizes of what the steps have made: %v", err))
	}
	if res != nil {
		list, err := images(ctx, c, res.Digest)
		if rep.Images = list; err != nil {
			notify(req.Notice, fmt.Sprintf("report: no sizes of layers: %v", err))
		}
	}
	rep.addFiles(req.Outputs)
	req.Report(rep)
}

// addFiles adds the files that were written to the step that wrote them, where there is
// only one.
func (r *Report) addFiles(outputs []Output) {
	var exports []int
	for i, s := range r.Steps {
		if strings.HasPrefix(s.Name, exporting) {
			exports = append(exports, i)
		}
	}
	for _, o := range outputs {
		if info, err := os.Stat(o.Dest); err == nil && info.Mode().IsRegular() && len(exports) == 1 {
			r.Steps[exports[0]].Sent += info.Size()
		}
	}
}

// report is what the recorder has seen, with what changed since before. It also returns
// what is to be remembered of this build.
func (r *recorder) report(before *past, args map[string]string, failed error) (*Report, *past) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sort()
	rep := &Report{Started: r.started, Ended: time.Now(), Sent: r.sent, Err: failed}
	for _, f := range r.files {
		name := f.path
		if named, ok := strings.CutPrefix(f.folder, namedContext); ok {
			name = named + ": " + name
		}
		rep.Files = append(rep.Files, name)
	}
	slices.Sort(rep.Files)
	if before != nil {
		rep.Previous = before.Ended
	}
	d := &detective{report: rep, before: before, args: args, sent: r.files}
	for _, s := range r.steps {
		rep.Steps = append(rep.Steps, s.step(rep.Ended, r.inputs(s)))
		d.facts = append(d.facts, r.factsOf(s))
		d.folders = append(d.folders, r.folders(s))
	}
	for i := range rep.Steps {
		if s := &rep.Steps[i]; !s.Cached && len(s.Spans) > 0 {
			s.Causes = d.causes(i)
		}
	}
	return rep, d.remember()
}

// sort brings the steps into the order in which they began; those that never did are last.
func (r *recorder) sort() {
	slices.SortStableFunc(r.steps, func(a, b *recorded) int {
		switch {
		case len(a.spans) == 0 || len(b.spans) == 0:
			return len(b.spans) - len(a.spans)
		default:
			return a.spans[0].Start.Compare(b.spans[0].Start)
		}
	})
}

func (r *recorder) inputs(s *recorded) []int {
	var list []int
	for _, key := range s.inputs {
		in := r.by[key]
		if n := slices.Index(r.steps, in); in != nil && in != s && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// folders names those of the inputs that are folders of the caller's.
func (r *recorder) folders(s *recorded) []string {
	list := make([]string, len(s.inputs))
	for n, key := range s.inputs {
		if f := r.facts[key]; f != nil {
			list[n] = f.Folder
		}
	}
	return list
}

// factsOf are those of all the vertexes of a step; nil if there are none. A vertex that
// is not to be cached has another digest than its frontend has asked for: so the name
// counts as well.
func (r *recorder) factsOf(s *recorded) *engine.Facts {
	var whole engine.Facts
	for _, key := range append([]string{s.name}, s.digests...) {
		if f := r.facts[key]; f != nil && f.Parts != nil {
			whole = *f
		}
	}
	if whole.Parts == nil {
		return nil
	}
	whole.Results, whole.Contents = nil, map[int]string{}
	for _, key := range s.digests {
		if f := r.facts[key]; f != nil {
			whole.Results = append(whole.Results, f.Results...)
			maps.Copy(whole.Contents, f.Contents)
		}
	}
	return &whole
}

func (s *recorded) step(now time.Time, inputs []int) ReportStep {
	step := ReportStep{Name: s.name, Inputs: inputs, Cached: true, Error: s.failed, Made: -1}
	if strings.HasSuffix(s.failed, context.Canceled.Error()) { // as BuildKit's display has it: the status is text
		step.Error, step.Stopped = "", true
	}
	for _, cached := range s.cached {
		step.Cached = step.Cached && cached
	}
	for _, p := range s.spans {
		if p.End.Before(p.Start) { // it was still at work when the build ended
			p.End = now
		}
		step.Spans = append(step.Spans, p)
	}
	for _, n := range s.received {
		step.Received += n
	}
	for _, n := range s.out {
		step.Sent += n
	}
	return step
}

// remember is what the next build compares with. What a failed build did not come to,
// and checksums that a cached step needed nobody to make, are those of the build before.
func (d *detective) remember() *past {
	p := &past{Ended: d.report.Ended}
	for i, s := range d.report.Steps {
		f := d.facts[i]
		if f == nil || f.Parts == nil {
			continue
		}
		step := pastStep{Name: s.Name, Parts: f.Parts, Contents: f.Contents, Done: s.Error == "" && !s.Stopped && len(s.Spans) > 0}
		if d.before != nil && len(step.Contents) == 0 && s.Cached {
			if old, renamed := d.before.find(s.Name); old != nil && !renamed {
				step.Contents = old.Contents
			}
		}
		p.Steps = append(p.Steps, step)
	}
	if d.before != nil && d.report.Err != nil {
		for _, old := range d.before.Steps {
			if s, renamed := p.find(old.Name); s == nil || renamed {
				p.Steps = append(p.Steps, old)
			}
		}
	}
	return p
}

// addSizes asks the engine how large is what the steps have made.
func (r *recorder) addSizes(ctx context.Context, c *client.Client, rep *Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	owner := map[string]int{}
	var filters []string
	for i, s := range r.steps {
		f := r.factsOf(s)
		if f == nil || rep.Steps[i].Cached || len(rep.Steps[i].Spans) == 0 {
			continue
		}
		for _, id := range f.Results {
			owner[id] = i
			filters = append(filters, "id=="+id)
		}
		if f.Record != "" {
			owner[f.Record] = i
			filters = append(filters, "description=="+strconv.Quote(f.Record))
		}
	}
	if len(filters) == 0 {
		return nil
	}
	list, err := c.DiskUsage(ctx, client.WithFilter(filters))
	if err != nil {
		return err
	}
	for _, u := range list {
		i, ok := owner[u.ID]
		if !ok {
			if i, ok = owner[u.Description]; !ok || u.CreatedAt.Before(r.started) {
				continue
			}
		}
		rep.Steps[i].Made = max(rep.Steps[i].Made, 0) + u.Size
	}
	return nil
}
