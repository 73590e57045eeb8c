//go:build linux

package engine

import "sync"

// copyQueue hands units of work to workers, who may add to it.
type copyQueue struct {
	workers int

	mu      sync.Mutex
	changed *sync.Cond
	todo    []copyUnit
	open    int // units that are waiting or being worked at
	idle    int // workers that wait
	stopped bool
}

func newCopyQueue(workers int) *copyQueue {
	q := &copyQueue{workers: workers}
	q.changed = sync.NewCond(&q.mu)
	return q
}

func (q *copyQueue) push(units ...copyUnit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.todo = append(q.todo, units...)
	q.open += len(units)
	q.changed.Broadcast()
}

// pop waits for the unit that was added last: so the queue stays short. There is none if
// all is done, or if somebody has stopped it.
func (q *copyQueue) pop() (copyUnit, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.todo) == 0 && q.open > 0 && !q.stopped {
		q.idle++
		q.changed.Wait()
		q.idle--
	}
	if q.stopped || len(q.todo) == 0 {
		return copyUnit{}, false
	}
	last := len(q.todo) - 1
	u := q.todo[last]
	q.todo = q.todo[:last]
	return u, true
}

// done says that a unit that was popped is done.
func (q *copyQueue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open--; q.open == 0 {
		q.changed.Broadcast()
	}
}

// hungry reports whether a worker has nothing to do.
func (q *copyQueue) hungry() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.idle > len(q.todo)
}

func (q *copyQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}
