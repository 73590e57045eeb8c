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
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF is never wrapped by a Reader
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

// watchedUpload sends r through t and gives up when the other side takes nothing
// more. Once it has everything, its answer may take longer.
func watchedUpload(t http.RoundTripper, r *http.Request, stall time.Duration) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return t.RoundTrip(r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	body := &watchedUploadBody{inner: r.Body, timer: time.AfterFunc(stall, func() { cancel(errStalled) }), stall: stall}
	r = r.WithContext(ctx)
	r.Body = body
	resp, err := t.RoundTrip(r)
	body.timer.Stop()
	if err != nil {
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &closing{resp.Body, func() { cancel(nil) }}
	return resp, nil
}

// watchedUploadBody is a body that has to keep being read.
type watchedUploadBody struct {
	inner io.ReadCloser
	timer *time.Timer
	stall time.Duration
}

// Read implements [io.Reader]. How long the source takes is not the registry's
// fault.
func (b *watchedUploadBody) Read(p []byte) (int, error) {
	b.timer.Stop()
	n, err := b.inner.Read(p)
	if err == nil {
		b.timer.Reset(b.stall)
	}
	return n, err
}

// Close implements [io.Closer].
func (b *watchedUploadBody) Close() error {
	b.timer.Stop()
	return b.inner.Close()
}

// closing does one thing more when it is closed.
type closing struct {
	io.ReadCloser
	then func()
}

// Close implements [io.Closer].
func (c *closing) Close() error {
	defer c.then()
	return c.ReadCloser.Close()
}
