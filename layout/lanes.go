package layout

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	firstLanes = 3  // blobs of one image that come at a time, at first
	maxLanes   = 16 // connections that an image comes over at most

	lookEvery   = 50 * time.Millisecond
	lookLonger  = 250 * time.Millisecond // before it is judged how fast connections are
	lookLongest = 2 * time.Second        // that a connection which brings nothing keeps the others from being judged
	slow        = 64 << 20               // bytes a second that one connection may bring before others are tried
	worthwhile  = 1.15                   // what twice the connections must be faster by
	pieceTime   = 1500 * time.Millisecond
	maxPiece    = 32 << 20
	minPiece    = 4 << 20
)

// lanes are the connections that the blobs of one image come over. At first
// there are as many as a fast link needs. Where each of them waits for the other
// side most of the time, because of a limit per connection or the way to it,
// their number is doubled as long as that helps: blobs that wait come first,
// then the largest is fetched in pieces.
type lanes struct {
	mu      sync.Mutex
	limit   int
	busy    int
	flowing int             // of the busy ones: bytes have come over them
	queue   []chan struct{} // blobs that wait for a lane, the first first
	blobs   []helped        // that are under way
	wide    bool            // one connection a blob is too slow
	settled bool            // more lanes didn't help, or weren't allowed
	before  float64         // bytes a second before the last growth
	changed time.Time       // when limit was
	mark    time.Time       // since when it is measured
	bytes   int64           // since mark
	waited  time.Duration   // for them, by all lanes together
	piece   int64           // bytes to fetch with one request
}

// helped is a blob that may be fetched in pieces, and how to have a lane do so.
type helped struct {
	*download
	assist func(a *lane, size int64)
}

// lane is one connection at a time.
type lane struct {
	of    *lanes
	flows bool
}

func newLanes() *lanes {
	now := time.Now()
	return &lanes{limit: firstLanes, changed: now, mark: now, piece: minPiece}
}

// run looks after the lanes until ctx ends.
func (l *lanes) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.look(now)
			l.help(now)
		}
	}
}

// enter waits for a lane for a blob.
func (l *lanes) enter(ctx context.Context) (*lane, error) {
	l.mu.Lock()
	if l.busy < l.limit && len(l.queue) == 0 {
		l.busy++
		l.mu.Unlock()
		return &lane{of: l}, nil
	}
	turn := make(chan struct{})
	l.queue = append(l.queue, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return &lane{of: l}, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, turn); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	} else { // the turn came meanwhile
		l.busy--
		l.next()
	}
	return nil, ctx.Err()
}

// next gives free lanes to who waits. l.mu is held.
func (l *lanes) next() {
	for l.busy < l.limit && len(l.queue) > 0 {
		close(l.queue[0])
		l.queue = l.queue[1:]
		l.busy++
	}
}

// leave gives the lane back.
func (a *lane) leave() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if a.flows {
		a.of.flowing--
	}
	a.of.busy--
	a.of.next()
}

// refused says that the other side does not want as many connections, or can't
// serve pieces: there will be no more than there are without this one.
func (a *lane) refused() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.of.settled = true
	a.of.limit = max(1, min(a.of.limit, a.of.busy-1))
}

// wanted reports whether a blob waits for the lane.
func (a *lane) wanted() bool {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	return len(a.of.queue) > 0 || a.of.busy > a.of.limit
}

// moved counts n bytes that took so long to come.
func (a *lane) moved(n int, took time.Duration) {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if n > 0 && !a.flows {
		a.flows = true
		a.of.flowing++
	}
	a.of.bytes += int64(n)
	a.of.waited += took
}

// look judges the speed, and grows where that may help.
func (l *lanes) look(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	steady := l.flowing == l.busy || now.Sub(l.changed) > lookLongest
	if l.settled || l.busy == 0 || l.wide && l.busy < l.limit || !steady {
		l.measure(now)
		return
	}
	if now.Sub(l.mark) < lookLonger {
		return
	}
	rate := float64(l.bytes) / now.Sub(l.mark).Seconds()
	each := float64(l.bytes) / max(l.waited, time.Millisecond).Seconds()
	l.measure(now)
	l.piece = min(max(int64(rate/float64(l.busy)*pieceTime.Seconds()), minPiece), maxPiece)
	switch {
	case each > slow:
	case rate < l.before*worthwhile, l.limit == maxLanes:
		l.settled = true
	default:
		l.wide, l.before, l.changed = true, rate, now
		l.limit = min(2*l.limit, maxLanes)
		l.next()
	}
}

// measure begins a new measurement.
func (l *lanes) measure(now time.Time) { l.mark, l.bytes, l.waited = now, 0, 0 }

// help has free lanes fetch pieces of the largest blobs.
func (l *lanes) help(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.wide && l.busy < l.limit && len(l.queue) == 0 {
		var largest helped
		var most int64
		for _, blob := range l.blobs {
			if left := blob.divisible(now); left > most {
				largest, most = blob, left
			}
		}
		if most == 0 {
			return
		}
		l.busy++
		largest.assist(&lane{of: l}, l.piece)
	}
}

// begin and end say which blobs may be helped with.
func (l *lanes) begin(dl *download, assist func(a *lane, size int64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blobs = append(l.blobs, helped{dl, assist})
}

func (l *lanes) end(dl *download) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blobs = slices.DeleteFunc(l.blobs, func(b helped) bool { return b.download == dl })
}
