package build

import (
	"cmp"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Report is what has happened in a build, for somebody who wants to know why it took as
// long as it did. It holds no value that a step was given but what stands in the
// steps' names, which is what the progress shows.
type Report struct {
	Started, Ended time.Time
	Steps          []ReportStep  // in the order in which they began
	Images         []ReportImage // one for each platform; none where no image was made
	// Previous is when the build ended that Causes compare with: the last one of the
	// same context, Dockerfile, target and platforms that the build state remembers.
	// Zero: there is none.
	Previous time.Time
	Files    []string // of the folders that are contexts, those that are other than at the last build: at most maxFiles of them
	Sent     int      // how many files are
	Err      error    // why the build failed; nil: it did not
}

// ReportStep is one step of a build: an instruction of the Dockerfile, or what the
// frontend and the exporters do.
type ReportStep struct {
	Name     string   // as the progress shows it
	Inputs   []int    // the steps it builds on, as indexes into Steps
	Spans    []Span   // when it was at work; none: it was not needed
	Cached   bool     // taken from the build cache
	Error    string   // "" unless it failed
	Stopped  bool     // it was at work when the build failed elsewhere, or was interrupted
	Received int64    // bytes that came in from outside: files of the context, layers of a base
	Sent     int64    // bytes that went out
	Made     int64    // bytes of the files that it made or changed; -1: not known
	Causes   []string // why it was not taken from the cache, as far as that is known; none for what is never cached
}

// Span is a piece of time.
type Span struct{ Start, End time.Time }

// ReportImage is one image of the result.
type ReportImage struct {
	Platform string // "linux/amd64"; "" if the image does not say
	Digest   v1.Hash
	Layers   []ReportLayer
}

// ReportLayer is one layer, from the base upwards.
type ReportLayer struct {
	Digest    v1.Hash
	Size      int64  // bytes as they are stored and sent
	CreatedBy string // the instruction, from the image's history; "" if that does not say
}

// Start is when the step began; the zero time if it never did.
func (s ReportStep) Start() time.Time {
	if len(s.Spans) == 0 {
		return time.Time{}
	}
	return s.Spans[0].Start
}

// End is when the step ended; the zero time if it never began.
func (s ReportStep) End() time.Time {
	var end time.Time
	for _, p := range s.Spans {
		if p.End.After(end) {
			end = p.End
		}
	}
	return end
}

// Took is how long the step was at work.
func (s ReportStep) Took() time.Duration {
	var sum time.Duration
	for _, p := range s.Spans {
		sum += p.End.Sub(p.Start)
	}
	return sum
}

// worked reports whether the step took time of its own.
func (s ReportStep) worked() bool { return !s.Cached && s.Took() > 0 }

// CriticalPath are the steps, from the first to the last, of which each waited for the
// one before it: only where one of them gets faster does the build as a whole. A step
// waited for that of its inputs which ended last; one without inputs, as an export,
// for whatever ended last before it began.
func (r *Report) CriticalPath() []int {
	at := -1
	for i, s := range r.Steps {
		if s.worked() && (at < 0 || s.End().After(r.Steps[at].End())) {
			at = i
		}
	}
	var path []int
	for at >= 0 && !slices.Contains(path, at) {
		path = append(path, at)
		at = r.waitedFor(at)
	}
	slices.Reverse(path)
	return path
}

// waitedFor is the step that step i could not begin without; -1 if there is none.
func (r *Report) waitedFor(i int) int {
	start := r.Steps[i].Spans[len(r.Steps[i].Spans)-1].Start
	candidates := r.atWork(r.Steps[i].Inputs)
	if len(candidates) == 0 {
		for n, s := range r.Steps {
			if n != i && s.worked() {
				candidates = append(candidates, n)
			}
		}
		start = r.Steps[i].Start()
	}
	candidates = slices.DeleteFunc(candidates, func(n int) bool { return r.Steps[n].End().After(start) })
	if len(candidates) == 0 {
		return -1
	}
	return slices.MaxFunc(candidates, func(a, b int) int { return cmp.Compare(r.Steps[a].End().UnixNano(), r.Steps[b].End().UnixNano()) })
}

// atWork are those of the steps that took time, and in place of the others those they
// build on.
func (r *Report) atWork(steps []int) []int {
	var found []int
	seen := map[int]bool{}
	for len(steps) > 0 {
		i := steps[0]
		steps = steps[1:]
		switch {
		case seen[i]:
		case r.Steps[i].worked():
			found = append(found, i)
		default:
			steps = append(slices.Clone(steps), r.Steps[i].Inputs...)
		}
		seen[i] = true
	}
	return found
}
