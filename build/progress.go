//go:build linux

package build

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	digest "github.com/opencontainers/go-digest"

	"github.com/wherry-oci/wherry/build/engine"
)

// lastLines is how much of a failed step's output an error carries.
const lastLines = 20

// show displays a status from the channel until it is closed.
func show(ctx context.Context, p Progress, from chan *client.SolveStatus) error {
	mode := progressui.DisplayMode(p.Mode)
	out := p.Out
	if mode == "none" || out == nil {
		mode, out = progressui.QuietMode, io.Discard
	}
	display, err := progressui.NewDisplay(out, mode)
	if err != nil {
		for range from { // the build must not block on us
		}
		return err
	}
	// The display lives as long as the build tells: an interrupted one still prints its end.
	_, err = display.UpdateFrom(context.WithoutCancel(ctx), from)
	return err
}

// hideCredentials takes the passwords of URLs out of what is shown and remembered.
func hideCredentials(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		v.Name, v.Error = engine.WithoutCredentials(v.Name), engine.WithoutCredentials(v.Error)
	}
}

// witness remembers the names of the steps and the end of their output.
type witness struct {
	recorder *recorder
	remote   bool   // the steps are not run by the engine of this program
	node     string // where the steps are run, if it is one of several; else ""

	mu     sync.Mutex
	names  map[string]string                // by vertex digest
	logs   map[string]*tail                 // the end of the output, by vertex digest
	failed map[string]string                // what each step failed with, by its name
	begun  map[digest.Digest]*client.Vertex // steps that have not ended
}

func newWitness(r *recorder) *witness {
	return &witness{recorder: r, names: map[string]string{}, logs: map[string]*tail{}, failed: map[string]string{}, begun: map[digest.Digest]*client.Vertex{}}
}

func (w *witness) add(s *client.SolveStatus) {
	hideCredentials(s)
	if w.node != "" {
		onNode(w.node, s)
	}
	w.recorder.add(s)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range s.Vertexes {
		w.names[v.Digest.String()] = v.Name
		if v.Error != "" {
			w.failed[v.Name] = v.Error
		}
		if delete(w.begun, v.Digest); v.Started != nil && v.Completed == nil {
			w.begun[v.Digest] = v
		}
	}
	for _, l := range s.Logs {
		key := l.Vertex.String()
		if w.logs[key] == nil {
			w.logs[key] = &tail{begun: map[int]string{}}
		}
		w.logs[key].add(l.Stream, string(l.Data))
	}
}

// stopped are the steps that will not come to their end.
func (w *witness) stopped() *client.SolveStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, now := &client.SolveStatus{}, time.Now()
	for _, v := range w.begun {
		ended := *v
		ended.Completed, ended.Error = &now, context.Canceled.Error()
		s.Vertexes = append(s.Vertexes, &ended)
	}
	return s
}

// exportFailed is what the export of an image failed with; "" if something else failed too,
// or nothing of that kind.
func (w *witness) exportFailed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	reason := ""
	for name, failure := range w.failed {
		if !strings.HasPrefix(name, exporting) && !strings.HasPrefix(name, "pushing ") {
			return ""
		}
		reason = failure
	}
	return reason
}

// onNode tells the steps of a node from those of others, which may be the same.
func onNode(node string, s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		v.Digest = vertexOn(node, v.Digest)
		for i := range v.Inputs {
			v.Inputs[i] = vertexOn(node, v.Inputs[i])
		}
		if v.ProgressGroup != nil {
			v.ProgressGroup.Id = node + " " + v.ProgressGroup.Id
		}
	}
	for _, v := range s.Statuses {
		v.Vertex = vertexOn(node, v.Vertex)
	}
	for _, l := range s.Logs {
		l.Vertex = vertexOn(node, l.Vertex)
	}
	for _, w := range s.Warnings {
		w.Vertex = vertexOn(node, w.Vertex)
	}
}

func vertexOn(node string, vertex digest.Digest) digest.Digest {
	return digest.FromString(node + " " + vertex.String())
}

// tail is the end of what a step prints.
type tail struct {
	lines []string
	begun map[int]string // of each stream, the line that has no end yet
}

// add takes a piece of output, which may begin and end in the middle of a line.
func (t *tail) add(stream int, data string) {
	parts := strings.Split(t.begun[stream]+data, "\n")
	last := len(parts) - 1
	t.lines, t.begun[stream] = append(t.lines, parts[:last]...), parts[last]
	t.lines = slices.Clone(t.lines[max(0, len(t.lines)-lastLines):])
}

// all is what there is, the lines without an end last.
func (t *tail) all() []string {
	lines := slices.Clone(t.lines)
	for _, stream := range slices.Sorted(maps.Keys(t.begun)) {
		if line := t.begun[stream]; line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// step returns what is known of a vertex: its name without the stage counter, and
// the end of its output.
func (w *witness) step(vertex string) (name string, output []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.node != "" {
		vertex = vertexOn(w.node, digest.Digest(vertex)).String()
	}
	name = withoutCounter(w.names[vertex])
	if log := w.logs[vertex]; log != nil {
		output = log.all()
	}
	return name, output
}

// withoutCounter is a step's name without the "[stage 2/3]" in front.
func withoutCounter(name string) string {
	if strings.HasPrefix(name, "[") {
		if _, rest, ok := strings.Cut(name, "] "); ok {
			return rest
		}
	}
	return name
}
