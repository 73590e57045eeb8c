package layout

import (
	"context"
	"slices"
	"time"
)

// Which connection fetches which bytes of a blob.

// piece is what one connection fetches.
type piece struct {
	start, next, end int64
	reach            int64 // up to where its request goes
	place            int64 // in the parts
	started          int64 // up to where its way to the disk was begun
}

// divisible is how much of the blob others could fetch.
func (dl *download) divisible(now time.Time) int64 {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	_, able := dl.src.(rangeOpener)
	if !able || dl.over || now.Before(dl.again) || dl.parts == nil && dl.left < worthDividing {
		return 0
	}
	if len(dl.free) == 0 && dl.longest(2*minPiece) == nil {
		return 0
	}
	return dl.left
}

// divide goes over to pieces of this size. dl.mu is held, or nothing runs yet.
func (dl *download) divide(size int64) error {
	dl.piece = size
	if dl.parts != nil {
		return nil
	}
	there := append([]span{{0, dl.g.n}}, dl.g.beyond...)
	notes, err := newParts(dl.g.partsName(), there)
	if err != nil {
		return err
	}
	dl.parts = notes
	for _, p := range dl.taken { // the first connection's
		p.start = 0 // it is the first part
		if end := p.next + size; end < p.end {
			dl.free = append(dl.free, span{end, p.end})
			p.end = end
		}
	}
	dl.group.Go(dl.hash)
	return nil
}

// take returns a piece that nobody has, or half of one that somebody is busy
// with, or none if nothing is left. The leader waits for what others may leave.
func (dl *download) take(ctx context.Context, leader bool) (*piece, error) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	for !dl.over {
		if len(dl.free) > 0 {
			s := &dl.free[0]
			start, end := s.start, min(s.end, s.start+dl.piece)
			if s.start = end; s.start == s.end {
				dl.free = slices.Delete(dl.free, 0, 1)
			}
			return dl.own(start, end)
		}
		if p := dl.longest(2 * minPiece); p != nil && dl.parts != nil {
			end := p.end
			p.end = p.next + (p.end-p.next)/2
			return dl.own(p.end, end)
		}
		if len(dl.taken) == 0 || !leader {
			return nil, nil
		}
		dl.news.Wait()
	}
	if ctx.Err() != nil {
		return nil, &sourceError{ctx.Err()}
	}
	return nil, dl.err
}

func (dl *download) own(start, end int64) (*piece, error) {
	p := &piece{start: start, next: start, end: end, started: start}
	if dl.parts != nil {
		var err error
		if p.place, err = dl.parts.add(span{start, start}); err != nil {
			return nil, err
		}
	}
	dl.taken = append(dl.taken, p)
	return p, nil
}

// giveBack leaves what is missing of a piece to others.
func (dl *download) giveBack(p *piece) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	dl.taken = slices.DeleteFunc(dl.taken, func(t *piece) bool { return t == p })
	if p.next < p.end {
		dl.free = tidy(append(dl.free, span{p.next, p.end}), dl.d.Size)
	}
	dl.news.Broadcast()
	dl.grown.Signal()
}

// room is how much of a piece is to be read. At its end it grows by what its
// request brings anyway and nobody else fetches.
func (dl *download) room(p *piece) int64 {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	if p.next == p.end && len(dl.free) > 0 {
		for i := range dl.free {
			s := &dl.free[i]
			if s.start != p.end || p.reach <= p.end {
				continue
			}
			p.end = min(s.end, p.reach, p.end+dl.piece)
			if s.start = p.end; s.start == s.end {
				dl.free = slices.Delete(dl.free, i, i+1)
			}
			break
		}
	}
	return p.end - p.next
}

// longest piece that is being fetched and has at least so much to go.
func (dl *download) longest(least int64) *piece {
	var found *piece
	for _, p := range dl.taken {
		if rest := p.end - p.next; rest >= least {
			found, least = p, rest
		}
	}
	return found
}

// missing is how many bytes have to come.
func (dl *download) missing() int64 {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	return dl.left
}

// whole is up to where nothing is missing.
func (dl *download) whole() int64 {
	end := dl.d.Size
	if len(dl.free) > 0 {
		end = dl.free[0].start
	}
	for _, p := range dl.taken {
		if p.next < p.end {
			end = min(end, p.next)
		}
	}
	return end
}

// keep has the ingest know what is there.
func (dl *download) keep() error {
	if dl.parts == nil {
		return nil
	}
	missing := dl.free
	for _, p := range dl.taken {
		missing = append(missing, span{p.next, p.end})
	}
	from := dl.g.n
	dl.g.beyond = nil
	for _, s := range append(tidy(missing, dl.d.Size), span{dl.d.Size, dl.d.Size}) {
		if s.start > from {
			dl.g.beyond = append(dl.g.beyond, span{from, s.start})
		}
		from = max(from, s.end)
	}
	return dl.parts.close()
}
