package main

import (
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barDisplay draws bars at the bottom of a terminal. It decides itself when to
// draw: mpb alone does not flush what was written above the last bars.
type barDisplay struct {
	bars  *mpb.Progress
	draw  chan any
	stop  chan struct{}
	drawn sync.WaitGroup
}

func newBarDisplay(w io.Writer) *barDisplay {
	d := &barDisplay{draw: make(chan any), stop: make(chan struct{})}
	terminal := mpb.WithConsoleWriter(&console{out: w})
	if runtime.GOOS == "windows" {
		terminal = mpb.WithOutput(w) // whose console may not know escape sequences
	}
	d.bars = mpb.New(terminal, mpb.WithWidth(barWidth), mpb.WithManualRefresh(d.draw))
	d.drawn.Go(func() {
		ticker := time.NewTicker(barRefresh)
		defer ticker.Stop()
		for {
			select {
			case now := <-ticker.C:
				d.draw <- now
			case <-d.stop:
				return
			}
		}
	})
	return d
}

// add makes a bar that is filled up to written, the first resumed bytes of it in
// another shape.
func (d *barDisplay) add(label string, size, written, resumed int64, m *speedometer) *mpb.Bar {
	bar := d.bars.New(size, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]").Refiller("+"),
		mpb.PrependDecorators(decor.Name(label, decor.WC{W: 27, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string { return barText(s, m.speed(time.Now())) })),
		mpb.BarRemoveOnComplete(),
	)
	bar.SetCurrent(written)
	bar.SetRefill(resumed)
	return bar
}

// close takes the bars away once they have been aborted. released is called
// when nothing more may be written through the display.
func (d *barDisplay) close(released func()) {
	close(d.stop)
	d.drawn.Wait()
	d.draw <- time.Now() // the aborted bars for the last time
	d.draw <- time.Now() // without them
	released()
	d.draw <- time.Now() // what somebody said meanwhile
	d.bars.Wait()
}

const (
	meterWindow = 4 * time.Second        // what the speed is the average of
	meterStep   = 100 * time.Millisecond // between two samples
)

// speedometer tells how fast bytes come: the average of the last seconds, so that a
// transfer that stands still is seen to. Its zero value is ready.
type speedometer struct {
	mu      sync.Mutex
	samples []sample // at least meterStep apart, but for the last
}

type sample struct {
	at    time.Time
	bytes int64
}

// add is told how many bytes there are at that time. Fewer than before means a
// transfer that began anew.
func (m *speedometer) add(at time.Time, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.samples)
	if n > 0 && bytes < m.samples[n-1].bytes {
		m.samples, n = nil, 0
	}
	if n > 1 && at.Sub(m.samples[n-2].at) < meterStep {
		m.samples[n-1] = sample{at, bytes}
		return
	}
	m.samples = append(m.samples, sample{at, bytes})
}

// speed is in bytes a second, 0 as long as there is too little to say.
func (m *speedometer) speed(now time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= meterWindow {
		m.samples = m.samples[1:]
	}
	if len(m.samples) == 0 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	took := now.Sub(first.at)
	if took < meterStep {
		return 0
	}
	return float64(last.bytes-first.bytes) / took.Seconds()
}
