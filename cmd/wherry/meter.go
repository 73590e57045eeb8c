package main

import (
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
)

// meter shows on a terminal, and only there, how much of one stream was read.
type meter struct {
	env   *env
	bars  *barDisplay // nil: nothing is shown
	bar   *mpb.Bar
	speed speedometer
	read  int64
}

// newMeter begins one; size at most 0 means that nobody knows it.
func newMeter(e *env, size int64) *meter {
	m := &meter{env: e}
	if !e.StderrTTY {
		return m
	}
	m.bars = newBarDisplay(e.Stderr)
	e.sayThrough(m.bars.bars)
	m.bar = m.bars.add("Importing", size, 0, 0, &m.speed)
	return m
}

func (m *meter) reader(r io.Reader) io.Reader {
	if m.bar == nil {
		return r
	}
	return readerFunc(func(b []byte) (int, error) {
		n, err := r.Read(b)
		m.read += int64(n)
		m.speed.add(time.Now(), m.read)
		m.bar.SetCurrent(m.read)
		return n, err
	})
}

// close takes the bar away.
func (m *meter) close() {
	if m.bars == nil {
		return
	}
	m.bar.Abort(true) // does nothing to a full one, which is gone already
	m.bars.close(func() { m.env.sayThrough(m.env.Stderr) })
}
