//go:build linux

package build

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

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

	mu    sync.Mutex
	names map[string]string // by vertex digest
	logs  map[string]*tail  // the end of the output, by vertex digest
}

func newWitness(r *recorder) *witness {
	return &witness{recorder: r, names: map[string]string{}, logs: map[string]*tail{}}
}

func (w *witness) add(s *client.SolveStatus) {
	hideCredentials(s)
	w.recorder.add(s)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range s.Vertexes {
		w.names[v.Digest.String()] = v.Name
	}
	for _, l := range s.Logs {
		key := l.Vertex.String()
		if w.logs[key] == nil {
			w.logs[key] = &tail{begun: map[int]string{}}
		}
		w.logs[key].add(l.Stream, string(l.Data))
	}
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
