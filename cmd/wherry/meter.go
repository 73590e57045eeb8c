package main

import (
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// meter shows on a terminal, and only there, how much of one stream was read.
type meter struct {
	env  *env
	bars *mpb.Progress // nil: nothing is shown
	bar  *mpb.Bar
}

// newMeter begins one; size at most 0 means that nobody knows it.
func newMeter(e *env, size int64) *meter {
	m := &meter{env: e}
	if !e.StderrTTY {
		return m
	}
	m.bars = mpb.New(mpb.WithOutput(e.Stderr), mpb.WithWidth(barWidth))
	e.sayThrough(m.bars)
	count := func(s decor.Statistics) string {
		if s.Total <= 0 {
			return " " + humanSize(s.Current)
		}
		return " " + humanSize(s.Current) + "/" + humanSize(s.Total)
	}
	m.bar = m.bars.New(size, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.PrependDecorators(decor.Name("Importing ")), mpb.AppendDecorators(decor.Any(count)))
	return m
}

func (m *meter) reader(r io.Reader) io.Reader {
	if m.bar == nil {
		return r
	}
	return readerFunc(func(b []byte) (int, error) {
		n, err := r.Read(b)
		m.bar.IncrBy(n)
		return n, err
	})
}

func (m *meter) close() {
	if m.bars == nil {
		return
	}
	m.bar.Abort(false) // does nothing to a full one
	m.bars.Wait()
	m.env.sayThrough(m.env.Stderr)
}
