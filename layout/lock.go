package layout

import (
	"context"
	"fmt"
	"time"

	"github.com/gofrs/flock"
)

// patience is how long a lock may keep its waiter without a word.
const patience = time.Second

// share holds the store open for adding blobs: no blob is collected until
// release is called.
func (s *Store) share(ctx context.Context) (release func(), err error) {
	what := fmt.Sprintf("waiting for another process to clean up the store %q", s.dir)
	return s.lock(ctx, s.path(storeLock), (*flock.Flock).TryRLock, what)
}

// lockIndex holds index.json for writing.
func (s *Store) lockIndex(ctx context.Context) (release func(), err error) {
	what := fmt.Sprintf("waiting for another process to write the index of the store %q", s.dir)
	return s.lock(ctx, s.path(indexLock), (*flock.Flock).TryLock, what)
}

// lock tries until it has the lock or ctx ends. It asks again and again instead
// of blocking in the kernel: only so can a wait be cancelled on every system.
func (s *Store) lock(ctx context.Context, path string, try func(*flock.Flock) (bool, error), waiting string) (func(), error) {
	l := flock.New(path)
	var told bool
	delay, begun := time.Millisecond, time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		got, err := try(l)
		if err != nil {
			return nil, fmt.Errorf("lock the store: %w", err)
		}
		if got {
			return func() { _ = l.Unlock() }, nil // closing the file drops the lock whatever it says
		}
		if !told && time.Since(begun) > patience {
			told = true
			s.notice(waiting)
		}
		delay = min(delay*2, 20*time.Millisecond)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}
