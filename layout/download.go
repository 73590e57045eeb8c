package layout

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	worthDividing = 32 << 20               // bytes left of a blob, for it to be fetched in pieces
	sulk          = 2 * time.Second        // after a piece was refused, doubles each time
	pieceBuffer   = 256 << 10              // of a connection but the first
	headway       = 64 << 10               // bytes that must have come for a broken connection to be made anew
	onePiece      = int64(maxBlobSize) + 1 // as long as there is one connection
)

// download brings what is missing of one blob into its ingest. It begins with
// one connection, reads in order and hashes on the way. Helped by others it
// becomes a list of pieces: each connection takes the first that nobody has, so
// that the blob still grows from its beginning on, and is hashed as it grows.
// Whatever goes wrong with a helper is left to the first connection, which asks
// for the rest as if nothing had been.
type download struct {
	src   Source
	d     v1.Descriptor
	g     *ingest
	tell  *teller
	lane  *lane
	group sync.WaitGroup // helpers, and who hashes

	mu     sync.Mutex
	news   *sync.Cond // pieces have come or gone
	grown  *sync.Cond // there is more to hash
	free   []span     // missing, and nobody's; in order
	taken  []*piece   // somebody is fetching them
	left   int64      // bytes missing
	piece  int64      // bytes to take at a time
	parts  *parts     // nil: everything comes in order
	over   bool       // nothing comes any more, or should
	err    error      // of this side, not of the source
	again  time.Time  // when help may be had again after it was refused
	sulked time.Duration
}

func newDownload(src Source, d v1.Descriptor, g *ingest, a *lane, t *teller) *download {
	dl := &download{src: src, d: d, g: g, lane: a, tell: t, piece: onePiece, left: d.Size - g.has()}
	dl.news, dl.grown = sync.NewCond(&dl.mu), sync.NewCond(&dl.mu)
	from := g.n
	for _, s := range append(slices.Clone(g.beyond), span{d.Size, d.Size}) {
		if s.start > from {
			dl.free = append(dl.free, span{from, s.start})
		}
		from = s.end
	}
	return dl
}

// run returns when the whole blob is there and verified, or nothing more comes.
func (dl *download) run(ctx context.Context) error {
	if len(dl.g.beyond) > 0 {
		if err := dl.divide(minPiece); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { dl.fail(nil) })
	helpers, dismiss := context.WithCancel(ctx)
	dl.lane.of.begin(dl, func(a *lane, size int64) { dl.assist(helpers, a, size) })
	err := dl.lead(ctx)
	stop()
	dl.lane.of.end(dl)
	dismiss()
	dl.fail(nil) // nothing comes any more
	dl.group.Wait()
	if ours := dl.failure(); ours != nil {
		err = ours // it says more than what followed from it
	}
	if err = errors.Join(err, dl.keep()); err != nil {
		return err
	}
	return compare(dl.d, dl.g.n, dl.g.hash)
}

// lead is the first connection. It ends when everything is there.
func (dl *download) lead(ctx context.Context) error {
	buf := make([]byte, min(bufferSize, dl.d.Size+1))
	for failed := 1; ; {
		p, err := dl.take(ctx, true)
		if p == nil || err != nil {
			return err
		}
		was := dl.missing()
		err = dl.fetch(ctx, p, buf, true)
		dl.giveBack(p)
		var broken *sourceError
		switch {
		case err == nil:
			failed = 1
		case !errors.As(err, &broken), ctx.Err() != nil, was-dl.missing() < headway, dl.missing() == 0, failed == maxAttempts:
			return err
		default:
			failed++
		}
	}
}

// assist has one more connection fetch pieces of the blob.
func (dl *download) assist(ctx context.Context, a *lane, size int64) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	if !dl.over {
		if err := dl.divide(size); err != nil {
			dl.err, dl.over = err, true
			dl.news.Broadcast()
		}
	}
	if dl.over {
		go a.leave() // who asks for help holds the lanes
		return
	}
	dl.group.Go(func() {
		defer a.leave()
		buf := make([]byte, pieceBuffer)
		for !a.wanted() {
			p, err := dl.take(ctx, false)
			if p == nil || err != nil {
				return
			}
			err = dl.assistWith(ctx, a, p, buf)
			dl.giveBack(p)
			if err != nil {
				return
			}
		}
	})
}

// assistWith fetches one piece. Only errors of this side end the whole transfer.
func (dl *download) assistWith(ctx context.Context, a *lane, p *piece, buf []byte) error {
	err := dl.fetchOver(ctx, a, p, buf, false)
	var broken *sourceError
	switch {
	case err == nil:
	case !errors.As(err, &broken):
		dl.fail(err)
	case p.next-p.start < worthResuming && ctx.Err() == nil:
		a.refused()
		dl.mu.Lock()
		dl.sulked = max(2*dl.sulked, sulk)
		dl.again = time.Now().Add(dl.sulked)
		dl.mu.Unlock()
	}
	return err
}

// fail ends the transfer, with or without an error of this side.
func (dl *download) fail(err error) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	if dl.err == nil {
		dl.err = err
	}
	dl.over = true
	dl.news.Broadcast()
	dl.grown.Broadcast()
}

func (dl *download) failure() error {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	return dl.err
}

func (dl *download) fetch(ctx context.Context, p *piece, buf []byte, leader bool) error {
	return dl.fetchOver(ctx, dl.lane, p, buf, leader)
}

// fetchOver reads piece p, and what comes after it as long as nobody has that.
func (dl *download) fetchOver(ctx context.Context, a *lane, p *piece, buf []byte, leader bool) error {
	r, err := dl.open(ctx, p, leader)
	if err != nil {
		return &sourceError{err}
	}
	defer r.Close()
	for {
		room := dl.room(p)
		if room == 0 {
			return dl.overrun(p, r, leader)
		}
		if err := ctx.Err(); err != nil {
			return &sourceError{err}
		}
		start := time.Now()
		n, err := r.Read(buf[:min(int64(len(buf)), room)])
		a.moved(n, time.Since(start))
		if n > 0 {
			if err := dl.came(p, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && int64(n) < room:
			return &sourceError{&DigestError{Digest: dl.d.Digest, Size: dl.d.Size, Bytes: p.next}}
		case err != nil && err != io.EOF:
			return &sourceError{err}
		}
	}
}

// open asks for a piece. The leader's first request is for all there is, so that
// it is the only one where others can't help.
func (dl *download) open(ctx context.Context, p *piece, leader bool) (io.ReadCloser, error) {
	ranges, able := dl.src.(rangeOpener)
	dl.mu.Lock()
	end := p.end // which others may cut short
	dl.mu.Unlock()
	if able && (end < dl.d.Size || !leader) {
		r, err := ranges.OpenRange(ctx, dl.d, p.next, end-p.next)
		if err == nil || !leader {
			p.reach = end
			return r, err
		}
	}
	if !able && !leader {
		return nil, errors.ErrUnsupported
	}
	p.reach = dl.d.Size
	return dl.src.Open(ctx, dl.d, p.next)
}

// overrun looks for bytes after the last one.
func (dl *download) overrun(p *piece, r io.Reader, leader bool) error {
	if !leader || p.next < dl.d.Size {
		return nil
	}
	var more [1]byte
	n, err := r.Read(more[:])
	switch {
	case n > 0:
		return &DigestError{Digest: dl.d.Digest, Size: dl.d.Size, Bytes: p.next + 1}
	case err != nil && err != io.EOF:
		return &sourceError{err}
	}
	return nil
}

// came writes what has come of a piece.
func (dl *download) came(p *piece, b []byte) error {
	if _, err := dl.g.file.WriteAt(b, p.next); err != nil {
		return err
	}
	p.started = writeback(dl.g.file, p.started, p.next+int64(len(b)))
	dl.mu.Lock()
	defer dl.mu.Unlock()
	p.next += int64(len(b))
	dl.left -= int64(len(b))
	if dl.parts == nil {
		dl.g.hash.Write(b)
		dl.g.n = p.next
		dl.g.started = p.started
	} else {
		if err := dl.parts.set(p.place, span{p.start, p.next}); err != nil {
			return err
		}
		dl.grown.Signal()
	}
	if dl.left > 0 {
		dl.tell.there(dl.d.Size - dl.left)
	}
	return nil
}

// hash reads back what came out of order, as soon as there is no gap before it.
func (dl *download) hash() {
	buf := make([]byte, bufferSize)
	for {
		dl.mu.Lock()
		for dl.g.n == dl.whole() && !dl.over {
			dl.grown.Wait()
		}
		whole := dl.whole()
		n := min(whole-dl.g.n, int64(len(buf)))
		stop := n == 0 || dl.over && whole < dl.d.Size
		dl.mu.Unlock()
		if stop {
			return
		}
		if _, err := dl.g.file.ReadAt(buf[:n], dl.g.n); err != nil {
			dl.fail(err)
			return
		}
		dl.g.hash.Write(buf[:n])
		dl.mu.Lock()
		dl.g.n += n
		dl.mu.Unlock()
	}
}

// teller reports how much of a blob is there, and never less than before.
type teller struct {
	mu   sync.Mutex
	to   Progress
	d    v1.Descriptor
	told int64
}

func newTeller(p Progress, d v1.Descriptor) *teller { return &teller{to: p, d: d, told: -1} }

func (t *teller) there(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > t.told {
		t.told = n
		report(t.to, t.d, n)
	}
}
