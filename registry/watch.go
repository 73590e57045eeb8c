package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// errStalled says that a registry keeps a connection open and sends nothing, or
// next to nothing.
var errStalled = errors.New("the registry stopped sending")

// watched sends r through t and gives up when the answer, headers or body,
// stalls. Only the time spent waiting counts, not what the reader does meanwhile.
func watched(t http.RoundTripper, r *http.Request, stall time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(stall, func() { cancel(errStalled) })
	resp, err := t.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	if err != nil {
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &watchedBody{
		inner: resp.Body, timer: timer, stall: stall,
		cancel: func() { cancel(nil) },
		cause:  func(err error) error { return causeOf(ctx, err) },
	}
	return resp, nil
}

// causeOf tells our own cancelling from that of the caller.
func causeOf(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// watchedBody is the body of an answer that has to keep coming.
type watchedBody struct {
	inner  io.ReadCloser
	timer  *time.Timer
	stall  time.Duration
	cancel func()
	cause  func(error) error

	waited time.Duration // since the last progress
	got    int           // bytes in that time
}

// Read implements [io.Reader].
func (b *watchedBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.timer.Reset(b.stall - b.waited)
	n, err := b.inner.Read(p)
	b.timer.Stop()
	b.waited += time.Since(start)
	b.got += n
	if b.got >= stallBytes {
		b.waited, b.got = 0, 0
	}
	if err != nil && err != io.EOF {
		err = b.cause(err)
	}
	return n, err
}

// Close implements [io.Closer].
func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.inner.Close()
	b.cancel()
	return err
}
