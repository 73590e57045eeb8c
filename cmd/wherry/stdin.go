package main

import (
	"context"
	"io"
	"os"
)

// stdin is standard input as long as nobody interrupts.
func (e *env) stdin(ctx context.Context) io.Reader { return untilInterrupted(ctx, e.Stdin) }

// untilInterrupted is r as long as nobody interrupts: the read of a pipe whose
// other end is silent would never return.
func untilInterrupted(ctx context.Context, r io.Reader) io.Reader {
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return f // never waits, and an archive of gigabytes is not copied once more
		}
	}
	return readerFunc(func(b []byte) (int, error) {
		// What the read may still bring after the interruption must not get into b.
		own := make([]byte, min(len(b), 64<<10))
		n, err := orInterrupted(ctx, func() (int, error) { return r.Read(own) })
		return copy(b, own[:n]), err
	})
}

type readerFunc func([]byte) (int, error)

// Read implements [io.Reader].
func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// orInterrupted waits for read, or for the interruption that read can't notice.
func orInterrupted[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
