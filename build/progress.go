//go:build linux

package build

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
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

// witness remembers the names of the steps and the end of their output.
type witness struct {
	recorder *recorder

	mu    sync.Mutex
	names map[string]string   // by vertex digest
	logs  map[string][]string // the last lines, by vertex digest
}

func newWitness(r *recorder) *witness {
	return &witness{recorder: r, names: map[string]string{}, logs: map[string][]string{}}
}

func (w *witness) add(s *client.SolveStatus) {
	w.recorder.add(s)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range s.Vertexes {
		w.names[v.Digest.String()] = v.Name
	}
	for _, l := range s.Logs {
		key := l.Vertex.String()
		w.logs[key] = appendLog(w.logs[key], string(l.Data))
	}
}

// appendLog adds a piece of output, which may begin and end in the middle of a line.
func appendLog(lines []string, data string) []string {
	if len(lines) == 0 {
		lines = []string{""}
	}
	for i, part := range strings.Split(data, "\n") {
		if i == 0 {
			lines[len(lines)-1] += part
		} else {
			lines = append(lines, part)
		}
	}
	return lines[max(0, len(lines)-lastLines-1):]
}

// step returns what is known of a vertex: its name without the stage counter, and
// the end of its output.
func (w *witness) step(vertex string) (name string, output []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name = w.names[vertex]
	if strings.HasPrefix(name, "[") {
		if _, rest, ok := strings.Cut(name, "] "); ok {
			name = rest
		}
	}
	output = w.logs[vertex]
	if n := len(output); n > 0 && output[n-1] == "" {
		output = output[:n-1]
	}
	return name, output
}
