package step

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/identity"
)

// ErrNotRunning says that a step to execute something in does not exist, or has ended.
var ErrNotRunning = errors.New("step is not running")

// Running are the steps of an executor that run, by id. Its zero value is ready for use.
type Running[T any] struct {
	mu    sync.Mutex
	steps map[string]*entry[T]
}

type entry[T any] struct {
	step    T
	started chan struct{} // closed when the step's own program runs
	done    chan struct{} // closed when Run is about to return
}

// Do calls run with the step's id, a new one if it is empty. started (which may be nil) is closed when run calls runs,
// at the latest when it returns.
func (r *Running[T]) Do(id string, step T, started chan<- struct{}, run func(id string, runs func()) error) error {
	if id == "" {
		id = identity.NewID()
	}
	signal := sync.OnceFunc(func() {
		if started != nil {
			close(started)
		}
	})
	defer signal()
	if err := executor.ValidContainerID(id); err != nil {
		return err
	}
	e, err := r.register(id, step)
	if err != nil {
		return err
	}
	defer r.unregister(id, e)
	return run(id, func() {
		close(e.started)
		signal()
	})
}

func (r *Running[T]) register(id string, step T) (*entry[T], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.steps[id]; ok {
		return nil, fmt.Errorf("step %q is already running", id)
	}
	if r.steps == nil {
		r.steps = map[string]*entry[T]{}
	}
	e := &entry[T]{step: step, started: make(chan struct{}), done: make(chan struct{})}
	r.steps[id] = e
	return e, nil
}

func (r *Running[T]) unregister(id string, e *entry[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.steps, id)
	close(e.done)
}

// Join waits until the step runs. The context that it returns ends with the step, so that what is started in the step
// ends then, too. leave has to be called. Without such a step the error is ErrNotRunning.
func (r *Running[T]) Join(ctx context.Context, id string) (step T, in context.Context, leave func(), err error) {
	r.mu.Lock()
	e, ok := r.steps[id]
	r.mu.Unlock()
	if !ok {
		return step, nil, nil, fmt.Errorf("step %q: %w", id, ErrNotRunning)
	}
	select {
	case <-e.started:
	case <-e.done:
		return step, nil, nil, fmt.Errorf("step %q: %w", id, ErrNotRunning)
	case <-ctx.Done():
		return step, nil, nil, context.Cause(ctx)
	}
	in, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-e.done:
			cancel(fmt.Errorf("step %q: %w", id, ErrNotRunning))
		case <-in.Done():
		}
	}()
	return e.step, in, func() { cancel(nil) }, nil
}
