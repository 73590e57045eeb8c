package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bounds on a download.
const (
	connectTimeout = 15 * time.Second
	answerTimeout  = time.Minute // from the request to the first byte of the answer
	stallTimeout   = time.Minute // in which a server has to send at least stallBytes
	stallBytes     = 16 << 10
	maxRedirects   = 10
)

// withoutSecrets is a URL without what a password or a signature may stand in.
func withoutSecrets(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return strings.SplitN(s, "://", 2)[0]
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// download asks for a URL. No credentials are sent but those in the URL itself,
// and these to its own host alone.
func download(ctx context.Context, source string) (_ *importSource, err error) {
	name := withoutSecrets(source)
	defer func() {
		if err != nil {
			err = fmt.Errorf("download %q: %w", name, err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	req.Header.Set("User-Agent", userAgent())
	resp, err := downloadClient().Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the server answers %s", resp.Status), resp.Body.Close())
	}
	return &importSource{ReadCloser: namedBody{resp.Body, name}, name: name, size: resp.ContentLength}, nil
}

// withoutURL takes away the URL that net/http repeats.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// namedBody says in its errors what was being downloaded.
type namedBody struct {
	io.ReadCloser
	name string
}

// Read implements [io.Reader].
func (b namedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF is never wrapped by a Reader
		err = fmt.Errorf("download %q: %w", b.name, err)
	}
	return n, err
}

// downloadClient gets what a person names by a URL, with bounds on how long it waits.
func downloadClient() *http.Client {
	return &http.Client{
		Transport: steadyTransport{stall: stallTimeout, base: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: answerTimeout,
			DisableCompression:    true, // the layer is what the server has, byte for byte
			DisableKeepAlives:     true,
			ForceAttemptHTTP2:     true,
		}},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			if last := via[len(via)-1]; last.URL.Scheme == "https" && req.URL.Scheme != "https" {
				return fmt.Errorf("a redirect to %q, which is not https", withoutSecrets(req.URL.String()))
			}
			return nil
		},
	}
}

// steadyTransport gives answers up that stop coming.
type steadyTransport struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip implements [http.RoundTripper].
func (t steadyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(err)
		return nil, err
	}
	timer := time.AfterFunc(t.stall, func() { cancel(errStalled) })
	timer.Stop() // until somebody waits for the body
	resp.Body = &steadyBody{body: resp.Body, cancel: cancel, ctx: ctx, stall: t.stall, timer: timer}
	return resp, nil
}

var errStalled = errors.New("the server stopped sending")

// steadyBody is the body of an answer that has to keep coming.
type steadyBody struct {
	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // says why a read ended
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration

	waited time.Duration // since the last progress; what the reader does meanwhile is not the server's fault
	got    int           // bytes in that time
}

// Read implements [io.Reader].
func (b *steadyBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.timer.Reset(b.stall - b.waited)
	n, err := b.body.Read(p)
	b.timer.Stop()
	b.waited += time.Since(start)
	if b.got += n; b.got >= stallBytes {
		b.waited, b.got = 0, 0
	}
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case context.Cause(b.ctx) != nil:
		return n, context.Cause(b.ctx)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, errors.New("the connection broke off")
	}
	return n, err
}

// Close implements [io.Closer].
func (b *steadyBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.body.Close()
}
