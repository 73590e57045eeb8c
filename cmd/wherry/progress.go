package main

import (
	"fmt"
	"sync"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barWidth is the width of a bar; the words beside it need about 60 columns.
const barWidth = 40

// progressWords is what docker calls the states of a layer.
type progressWords struct {
	active, resumed, done, already string
}

var (
	pullWords = progressWords{active: "Downloading", resumed: "Resuming", done: "Pull complete", already: "Already exists"}
	pushWords = progressWords{active: "Pushing", resumed: "Pushing", done: "Pushed", already: "Layer already exists"}
	loadWords = progressWords{active: "Loading layer", resumed: "Loading layer", done: "Loaded", already: "Already exists"}
)

// progress shows layers as they move: a bar each on a terminal, elsewhere a line
// for each that is finished, and nothing where the user wants quiet. Manifests
// and configs are counted but not shown.
type progress struct {
	env    *env
	quiet  bool
	words  progressWords
	header []string // said when the first blob is reported: not before an error

	mu      sync.Mutex
	bars    *mpb.Progress // nil: plain lines
	layers  map[v1.Hash]*layerProgress
	changed bool // anything moved
}

type layerProgress struct {
	bar      *mpb.Bar // nil: plain lines
	finished bool
}

func newProgress(e *env, quiet bool, words progressWords, header ...string) *progress {
	p := &progress{env: e, quiet: quiet, words: words, header: header, layers: map[v1.Hash]*layerProgress{}}
	if !quiet && e.StderrTTY {
		p.bars = mpb.New(mpb.WithOutput(e.Stderr), mpb.WithWidth(barWidth))
		e.sayThrough(p.bars)
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
		layer = &layerProgress{}
		p.layers[d.Digest] = layer
		if p.bars != nil && isLayer(d) {
			layer.bar = p.newBar(d, written, already)
		}
	}
	if layer.bar != nil {
		layer.bar.SetCurrent(written)
	}
	if written < d.Size || layer.finished {
		return
	}
	layer.finished = true
	if p.bars == nil && !p.quiet && isLayer(d) {
		word := p.words.done
		if already {
			word = p.words.already
		}
		fmt.Fprintf(p.env.Stderr, "%s: %s\n", shortID(d.Digest.String()), word)
	}
}

// isLayer takes what is not a manifest, an index or a config for a layer: an
// artifact's blobs may have any type.
func isLayer(d v1.Descriptor) bool {
	return !d.MediaType.IsIndex() && !d.MediaType.IsImage() && !d.MediaType.IsConfig()
}

// newBar adds a layer's bar. What an earlier run had already brought stands in
// it from the beginning, in another shape.
func (p *progress) newBar(d v1.Descriptor, resumed int64, already bool) *mpb.Bar {
	words := p.words
	if already {
		words.done = words.already
	}
	state := func(s decor.Statistics) string {
		word := words.active
		switch {
		case s.Completed:
			word = words.done
		case s.Aborted:
			word = "Stopped"
		case resumed > 0:
			word = words.resumed
		}
		return shortID(d.Digest.String()) + ": " + word + " "
	}
	count := func(s decor.Statistics) string {
		if s.Completed {
			return ""
		}
		return fmt.Sprintf(" %8s/%s", units.HumanSizeWithPrecision(float64(s.Current), 3), humanSize(s.Total))
	}
	bar := p.bars.New(d.Size, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]").Refiller("+"),
		mpb.PrependDecorators(decor.Any(state)),
		mpb.AppendDecorators(decor.Any(count)),
		mpb.BarFillerClearOnComplete(),
	)
	if !already {
		bar.SetRefill(resumed)
	}
	return bar
}

// moved says whether any byte had to be moved.
func (p *progress) moved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// close ends the display; bars that are not full stay as they are.
func (p *progress) close() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, l := range p.layers {
		if l.bar != nil {
			l.bar.Abort(false) // does nothing to a full one
		}
	}
	p.mu.Unlock()
	p.bars.Wait()
	p.env.sayThrough(p.env.Stderr)
}
