//go:build linux

package build

import (
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/wherry-oci/wherry/build/engine"
)

// maxFiles bounds how many files that were sent a report names.
const maxFiles = 1000

// exporting begins the names of the steps that hand out the result.
const exporting = "exporting to "

// recorder notes what happens in one build, from its status and from the files that the
// engine asks for.
type recorder struct {
	started time.Time
	allow   []string // what the steps may ask for

	mu    sync.Mutex
	steps []*recorded              // in the order they were heard of
	by    map[string]*recorded     // by vertex digest
	facts map[string]*engine.Facts // by vertex digest, and by name
	files []sentFile
	sent  int
}

// sentFile is a file that was sent to the engine, or that the engine has copied.
type sentFile struct {
	folder string // as the engine calls it: "context", or that of a named context
	path   string
}

// recorded is one step as the status tells of it. BuildKit's vertexes of one progress group are
// one step.
type recorded struct {
	name     string
	digests  []string
	inputs   []string
	spans    []Span
	cached   map[string]bool // by vertex digest
	failed   string
	received map[string]int64 // by the ID of the status
	out      map[string]int64
}

func newRecorder(started time.Time, allow []string) *recorder {
	return &recorder{started: started, allow: allow, by: map[string]*recorded{}, facts: map[string]*engine.Facts{}}
}

// add notes a status, and takes out of it what is for nobody else.
func (r *recorder) add(s *client.SolveStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Warnings = slices.DeleteFunc(s.Warnings, func(w *client.VertexWarning) bool {
		if w.URL != engine.FactsID {
			return false
		}
		r.addFacts(w.Vertex.String(), string(w.Short))
		return true
	})
	s.Statuses = slices.DeleteFunc(s.Statuses, func(v *client.VertexStatus) bool {
		if !strings.HasPrefix(v.ID, engine.FactsID) {
			return false
		}
		r.addFacts(v.Vertex.String(), v.Name)
		return true
	})
	for _, v := range s.Vertexes {
		r.addVertex(v)
	}
	for _, v := range s.Statuses {
		was := v.Completed != nil && v.Completed.Before(r.started) // a blob that was there before
		if step := r.by[v.Vertex.String()]; step != nil && v.Current > 0 && !was {
			step.addBytes(v)
		}
	}
}

func (r *recorder) addVertex(v *client.Vertex) {
	key, name := v.Digest.String(), v.Name
	step := r.by[key]
	if g := v.ProgressGroup; step == nil && g != nil {
		step, name = r.by["group "+g.Id], g.Name
	}
	if step == nil {
		step = &recorded{name: name, cached: map[string]bool{}, received: map[string]int64{}, out: map[string]int64{}}
		r.steps = append(r.steps, step)
	}
	if g := v.ProgressGroup; g != nil {
		r.by["group "+g.Id] = step
	}
	if r.by[key] == nil {
		r.by[key] = step
		step.digests = append(step.digests, key)
		for _, in := range v.Inputs {
			step.inputs = append(step.inputs, in.String())
		}
	}
	step.cached[key] = v.Cached
	if v.Error != "" {
		step.failed = v.Error
	}
	step.addSpan(v.Started, v.Completed)
}

// refused is a step that was heard of and asks for what it may not have; nil if there is
// none.
func (r *recorder) refused() *RefusedError {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(r.facts)) {
		f := r.facts[key]
		e := &RefusedError{Step: withoutCounter(f.Name)}
		for _, n := range f.Needs {
			if !slices.Contains(r.allow, n) {
				e.Needs = append(e.Needs, n)
			}
		}
		if len(f.Devices) > 0 {
			e.Device = f.Devices[0]
		}
		if len(e.Needs) > 0 || e.Device != "" {
			return e
		}
	}
	return nil
}

// addSpan notes when the step was at work. A span is told when it begins and again when
// it has ended.
func (s *recorded) addSpan(start, end *time.Time) {
	if start == nil {
		return
	}
	i := slices.IndexFunc(s.spans, func(p Span) bool { return p.Start.Equal(*start) })
	if i < 0 {
		i = len(s.spans)
		s.spans = append(s.spans, Span{Start: *start})
	}
	if end != nil {
		s.spans[i].End = *end
	}
}

// addBytes notes how far a transfer has come. What the exporters do goes out.
func (s *recorded) addBytes(v *client.VertexStatus) {
	to := s.received
	if strings.HasPrefix(s.name, exporting) || strings.HasPrefix(v.ID, "copying files") || strings.HasPrefix(v.ID, "pushing") {
		to = s.out
	}
	to[v.ID] = max(to[v.ID], v.Current)
}

// addFacts adds a piece to what is known of a step.
func (r *recorder) addFacts(vertex, text string) {
	piece, err := engine.ParseFacts(text)
	if err != nil {
		return // of an engine of another version: less is known then
	}
	f := r.facts[vertex]
	if f == nil {
		f = &engine.Facts{Contents: map[int]string{}}
		r.facts[vertex] = f
	}
	if piece.Parts != nil {
		piece.Results, piece.Contents = f.Results, f.Contents
		*f = piece
		if f.Name != "" {
			r.facts[f.Name] = f
		}
		return
	}
	for _, path := range piece.Changed {
		r.addFile(sentFile{piece.Folder, path})
	}
	r.sent += piece.Count
	maps.Copy(f.Contents, piece.Contents)
	f.Results = append(f.Results, piece.Results...)
}

func (r *recorder) addFile(f sentFile) {
	if len(r.files) < maxFiles {
		r.files = append(r.files, f)
	}
}

// watch notes which files of the contexts are sent, to the engine of another process.
func (r *recorder) watch(folders map[string]fsutil.FS) map[string]fsutil.FS {
	watched := make(map[string]fsutil.FS, len(folders))
	for name, f := range folders {
		watched[name] = f
		if name == "context" || strings.HasPrefix(name, namedContext) {
			watched[name] = asked{f, name, r}
		}
	}
	return watched
}

// asked is a folder that knows which of its files the engine has asked for: those that
// are not what they were when the folder was sent last.
type asked struct {
	fsutil.FS
	name     string
	recorder *recorder
}

func (a asked) Open(path string) (io.ReadCloser, error) {
	a.recorder.mu.Lock()
	a.recorder.sent++
	a.recorder.addFile(sentFile{a.name, path})
	a.recorder.mu.Unlock()
	return a.FS.Open(path)
}
