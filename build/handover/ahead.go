//go:build linux

package handover

import "io"

const (
	aheadChunk  = 256 << 10
	aheadChunks = 8 // in flight
)

// readAhead has r read in a goroutine of its own, so that what it takes to read (decompress, hash, keep) goes on beside
// what is done with it. Nobody reads r any more when stop has returned.
func readAhead(r io.Reader) (_ io.Reader, stop func()) {
	a := &ahead{full: make(chan chunk, aheadChunks), empty: make(chan []byte, aheadChunks+2)}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		a.fill(r, done)
	}()
	return a, func() {
		close(done)
		<-ended
	}
}

// ahead hands on what was read, and after the last of it the error that reading ended with.
type ahead struct {
	full  chan chunk
	empty chan []byte
	chunk chunk
	rest  []byte // of the chunk
}

type chunk struct {
	data []byte
	err  error
}

func (a *ahead) fill(r io.Reader, done <-chan struct{}) {
	for {
		var c chunk
		select {
		case c.data = <-a.empty:
			c.data = c.data[:aheadChunk]
		default:
			c.data = make([]byte, aheadChunk)
		}
		n := 0
		for n < len(c.data) && c.err == nil {
			var more int
			more, c.err = r.Read(c.data[n:])
			n += more
		}
		c.data = c.data[:n]
		select {
		case a.full <- c:
		case <-done:
			return
		}
		if c.err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.chunk.err != nil {
			return 0, a.chunk.err
		}
		if a.chunk.data != nil {
			a.empty <- a.chunk.data // there is room for all that are in flight
		}
		a.chunk = <-a.full
		a.rest = a.chunk.data
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}
