package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	barWidth   = 40                     // at most; the words beside it need 54 columns, or fewer on a narrow terminal
	maxBars    = 8                      // at once; a layer beyond them has its line when it is finished
	barRefresh = 150 * time.Millisecond // between two drawings
)

// progressWords is what docker calls the states of a layer.
type progressWords struct {
	active, resumed, done, already string
}

var (
	pullWords = progressWords{active: "Downloading", resumed: "Resuming", done: "Pull complete", already: "Already exists"}
	pushWords = progressWords{active: "Pushing", resumed: "Pushing", done: "Pushed", already: "Layer already exists"}
	copyWords = progressWords{active: "Copying", resumed: "Copying", done: "Copied", already: "Already exists"}
	loadWords = progressWords{active: "Loading layer", resumed: "Loading layer", done: "Loaded", already: "Already exists"}
)

// progress shows layers as they move: a line for each that is finished, below
// them on a terminal a bar for each that moves, and nothing where the user wants
// quiet. Manifests and configs are counted but not shown.
type progress struct {
	env    *env
	quiet  bool
	words  progressWords
	header []string // said when the first blob is reported: not before an error

	mu      sync.Mutex
	bars    *barDisplay // nil: lines only
	layers  map[v1.Hash]*layerProgress
	order   []*layerProgress
	changed bool // anything moved
}

type layerProgress struct {
	name     string
	size     int64
	written  int64
	bar      *mpb.Bar // nil: it has none
	meter    *speedometer
	finished bool
}

func newProgress(e *env, quiet bool, words progressWords, header ...string) *progress {
	p := &progress{env: e, quiet: quiet, words: words, header: header, layers: map[v1.Hash]*layerProgress{}}
	if !quiet && e.StderrTTY {
		p.bars = newBarDisplay(e.Stderr)
		e.sayThrough(p.bars.bars)
	}
	return p
}

// update is told by registry and layout how far a blob is.
func (p *progress) update(d v1.Descriptor, written int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.quiet {
		for _, line := range p.header {
			p.env.say("%s", line)
		}
	}
	p.header = nil
	layer, known := p.layers[d.Digest]
	already := !known && written >= d.Size
	if !already {
		p.changed = true
	}
	if !known {
		layer = &layerProgress{name: shortID(d.Digest.String()), size: d.Size}
		p.layers[d.Digest] = layer
		if isLayer(d) {
			p.order = append(p.order, layer)
		}
	}
	layer.written = written
	if p.quiet || !isLayer(d) || layer.finished {
		return
	}
	switch {
	case written >= d.Size:
		layer.finished = true
		p.finish(layer, already)
	case layer.bar != nil:
		layer.meter.add(time.Now(), written)
		layer.bar.SetCurrent(written)
	case p.bars != nil && p.moving() < maxBars:
		p.start(layer, known)
	}
}

// moving counts the bars.
func (p *progress) moving() int {
	n := 0
	for _, l := range p.order {
		if l.bar != nil {
			n++
		}
	}
	return n
}

// start gives a layer a bar. What an earlier run had already brought stands in
// it from the beginning, in another shape; late means that this run brought it,
// while there was no room for a bar.
func (p *progress) start(l *layerProgress, late bool) {
	l.meter = &speedometer{}
	l.meter.add(time.Now(), l.written)
	word, resumed := p.words.active, int64(0)
	if l.written > 0 && !late {
		word, resumed = p.words.resumed, l.written
	}
	l.bar = p.bars.add(l.name+": "+word, l.size, l.written, resumed, l.meter)
}

// finish puts a layer's last word above the bars.
func (p *progress) finish(l *layerProgress, already bool) {
	if l.bar != nil {
		l.bar.Abort(true)
		l.bar = nil
	}
	word := p.words.done
	if already {
		word = p.words.already
	}
	p.env.say("%s: %s", l.name, word)
}

// isLayer takes what is not a manifest, an index or a config for a layer: an
// artifact's blobs may have any type.
func isLayer(d v1.Descriptor) bool {
	return !d.MediaType.IsIndex() && !d.MediaType.IsImage() && !d.MediaType.IsConfig()
}

// moved says whether any byte had to be moved.
func (p *progress) moved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// close ends the display. Of what is not whole it leaves a line that says how far it came.
func (p *progress) close() {
	p.mu.Lock()
	bars := p.bars
	p.bars = nil
	if bars == nil {
		p.mu.Unlock()
		return
	}
	for _, l := range p.order {
		if l.finished {
			continue
		}
		if l.bar != nil {
			l.bar.Abort(true)
			l.bar = nil
		}
		p.env.say("%s: Stopped at %s", l.name, countText(l.written, l.size))
	}
	p.mu.Unlock()
	bars.close(func() { p.env.sayThrough(p.env.Stderr) })
}

// countText is how much there is of a size that may not be known.
func countText(written, size int64) string {
	if size <= 0 {
		return units.HumanSizeWithPrecision(float64(written), 3)
	}
	return units.HumanSizeWithPrecision(float64(written), 3) + "/" + humanSize(size)
}

// barText is the part of a bar on its right: bytes and speed, as far as there is room.
func barText(s decor.Statistics, speed float64) string {
	full := fmt.Sprintf(" %-15s", countText(s.Current, s.Total))
	percent := ""
	if s.Total > 0 {
		percent = fmt.Sprintf(" %3d%%", s.Current*100/s.Total)
	}
	fast := ""
	if speed > 0 {
		fast = units.HumanSizeWithPrecision(speed, 3) + "/s"
	}
	switch {
	case s.AvailableWidth >= 34:
		return fmt.Sprintf("%s %9s", full, fast)
	case s.AvailableWidth >= 16:
		return full
	case s.AvailableWidth >= 5:
		return percent
	}
	return ""
}
