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

// isURL tells a URL from the name of a file, as docker does.
func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

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
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if err != nil {
			cancel(err)
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
	body := &steadyBody{body: resp.Body, name: name, cancel: cancel, ctx: ctx, timer: time.AfterFunc(stallTimeout, func() { cancel(errStalled) })}
	return &importSource{ReadCloser: body, name: name, size: resp.ContentLength}, nil
}

// withoutURL takes away the URL that net/http repeats.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func downloadClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: answerTimeout,
			DisableCompression:    true, // the layer is what the server has, byte for byte
			DisableKeepAlives:     true,
			ForceAttemptHTTP2:     true,
		},
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

var errStalled = errors.New("the server stopped sending")

// steadyBody is the body of an answer that has to keep coming.
type steadyBody struct {
	body   io.ReadCloser
	name   string
	ctx    context.Context //nolint:containedctx // says why a read ended
	cancel context.CancelCauseFunc
	timer  *time.Timer

	waited time.Duration // since the last progress; what the reader does meanwhile is not the server's fault
	got    int           // bytes in that time
}

// Read implements [io.Reader].
func (b *steadyBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.timer.Reset(stallTimeout - b.waited)
	n, err := b.body.Read(p)
	b.timer.Stop()
	b.waited += time.Since(start)
	if b.got += n; b.got >= stallBytes {
		b.waited, b.got = 0, 0
	}
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // io.EOF is never wrapped by a Reader
		return n, err
	case context.Cause(b.ctx) != nil:
		err = context.Cause(b.ctx)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the connection broke off")
	}
	return n, fmt.Errorf("download %q: %w", b.name, err)
}

// Close implements [io.Closer].
func (b *steadyBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.body.Close()
}
