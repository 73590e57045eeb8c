package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobReader reads one blob and connects anew where a connection breaks. Blobs
// are named by their digest, so that no ETag has to tell whether the rest still
// belongs to the beginning.
type blobReader struct {
	connect func(offset int64) (io.ReadCloser, error)
	wait    func(try int) error
	tries   int // without progress, at most
	stalls  int // of these, such that nothing more came
	size    int64
	digest  v1.Hash

	body   io.ReadCloser
	offset int64
	mark   int64 // the offset of the last break that counted as progress
	failed int   // tries since then
}

// progress is what has to come between two breaks of a connection so that they
// are not counted together: a registry that breaks after every byte ends too.
const progress = 1 << 20

// openBlob connects before it returns, so that what is missing or forbidden is
// known at once.
func openBlob(ctx context.Context, i *Image, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	limits := i.client.limits
	r := &blobReader{
		connect: func(offset int64) (io.ReadCloser, error) { return i.connect(ctx, d, offset) },
		wait: func(try int) error {
			pause, _ := limits.pause(try, 0)
			return sleep(ctx, pause)
		},
		tries: limits.tries, stalls: limits.stalls, size: d.Size, digest: d.Digest, offset: offset, mark: offset,
	}
	if offset == d.Size {
		return r, nil
	}
	body, err := r.connect(offset)
	if err != nil {
		return nil, err
	}
	r.body = body
	return r, nil
}

// Read implements [io.Reader].
func (r *blobReader) Read(p []byte) (int, error) {
	for {
		if r.offset >= r.size {
			return 0, r.end()
		}
		if r.body == nil {
			if err := r.reconnect(); err != nil {
				return 0, err
			}
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.size-r.offset)])
		r.offset += int64(n)
		if err == nil || r.offset == r.size {
			return n, nil
		}
		if err := r.broken(err); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// end looks for bytes after the last one, where their number was not announced.
func (r *blobReader) end() error {
	if r.body == nil {
		return io.EOF
	}
	var more [1]byte
	n, _ := r.body.Read(more[:]) // all that was asked for is there, however it ends
	if n > 0 {
		return &SizeError{Digest: r.digest, Want: r.size, Got: -1}
	}
	return io.EOF
}

// broken decides whether a connection that ended with err is made anew.
func (r *blobReader) broken(err error) error {
	_ = r.body.Close() // it is broken already
	r.body = nil
	if err == io.EOF { //nolint:errorlint // io.EOF is never wrapped by a Reader
		err = io.ErrUnexpectedEOF
	}
	if r.offset-r.mark >= progress {
		r.mark, r.failed = r.offset, 0
	}
	if r.failed++; r.failed >= r.triesAfter(err) || !isTransient(err) {
		return r.fail(err)
	}
	return nil
}

// triesAfter err: waiting for nothing takes the longest of all.
func (r *blobReader) triesAfter(err error) int {
	if errors.Is(err, errStalled) {
		return min(r.tries, r.stalls)
	}
	return r.tries
}

// reconnect until a connection stands or no try is left.
func (r *blobReader) reconnect() error {
	for {
		if err := r.wait(max(r.failed, 1)); err != nil {
			return err
		}
		body, err := r.connect(r.offset)
		if err == nil {
			r.body = body
			return nil
		}
		// A host that was there a moment ago may be so again: here a refused
		// connection is worth another try.
		if r.failed++; r.failed >= r.triesAfter(err) || !is[*UnreachableError](err) {
			return r.fail(err)
		}
	}
}

func (r *blobReader) fail(err error) error {
	return fmt.Errorf("reading %s broke off at byte %d of %d: %w", r.digest, r.offset, r.size, err)
}

// Close implements [io.Closer].
func (r *blobReader) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// connect asks each host for d from offset on, then the places that a foreign
// layer names itself.
func (i *Image) connect(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	var failures []error
	for n, host := range i.hosts {
		s := i.client.session(host, i.ref, "pull")
		if n < len(i.hosts)-1 {
			s.tries = 1
		}
		body, err := s.blob(ctx, d, offset)
		if err == nil {
			i.serves.Store(host)
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failures = append(failures, err)
	}
	for _, u := range d.URLs {
		if body, err := i.client.foreign(ctx, u, d, offset); err == nil {
			return body, nil
		}
	}
	err := worst(failures)
	if is[*NotFoundError](err) {
		return nil, &NotFoundError{Ref: reference.FamiliarName(i.ref) + "@" + d.Digest.String()}
	}
	return nil, err
}

// blob asks s's host for d from offset on.
func (s *session) blob(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	kind, header := "/blobs/", http.Header{}
	if isManifest(d.MediaType) {
		kind = "/manifests/"
		header["Accept"] = []string{acceptable(), string(d.MediaType)}
	}
	setRange(header, d, offset)
	resp, err := s.get(ctx, s.repo+kind+d.Digest.String(), header) //nolint:bodyclose // from takes it over
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusRequestedRangeNotSatisfiable {
		header.Del("Range")                                           // some servers do not know ranges, and say so
		resp, err = s.get(ctx, s.repo+kind+d.Digest.String(), header) //nolint:bodyclose // from takes it over
	}
	if err != nil {
		return nil, err
	}
	return s.from(resp, d, offset)
}

// setRange asks for d from offset on. The end is named, as not all servers know
// open ranges.
func setRange(h http.Header, d v1.Descriptor, offset int64) {
	if offset > 0 {
		h.Set("Range", byteRange(offset, d.Size-offset))
	}
}

// byteRange is length bytes from offset on, as RFC 9110, 14.2 writes them.
func byteRange(offset, length int64) string {
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}

// from gives the body of resp, which is d from offset on. Servers may ignore a
// range; what is announced with another length is not even begun.
func (s *session) from(resp *http.Response, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	whole := resp.StatusCode != http.StatusPartialContent
	length := d.Size
	var err error
	if !whole {
		length, err = d.Size-offset, checkRange(resp, offset)
	}
	if n := resp.ContentLength; err == nil && n >= 0 && n != length {
		err = &SizeError{Host: s.to.account(), Digest: d.Digest, Want: length, Got: n}
	}
	if err == nil && whole {
		_, err = io.CopyN(io.Discard, resp.Body, offset)
	}
	if err != nil {
		_ = resp.Body.Close() // nothing of it is used
		return nil, s.fault(err)
	}
	return faultReader{resp.Body, s}, nil
}

// checkRange that the bytes which come are those asked for.
func checkRange(resp *http.Response, offset int64) error {
	if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", offset)) {
		return fmt.Errorf("asked for bytes from %d on, got %q", offset, bounded(got))
	}
	return nil
}

// OpenRange reads length bytes of layer d from offset on, over one more connection
// to the host that serves d already. It tries once: a registry that cannot serve
// ranges, or not so many at a time, has its error returned at once, and Open goes
// on as if nothing had been. The reader ends with its first error.
func (i *Image) OpenRange(ctx context.Context, d v1.Descriptor, offset, length int64) (io.ReadCloser, error) {
	host := i.serves.Load()
	if host == nil || isManifest(d.MediaType) || offset < 0 || length <= 0 || length > d.Size-offset {
		return nil, fmt.Errorf("reading a part of %s: %w", d.Digest, errors.ErrUnsupported)
	}
	s := i.client.session(host, i.ref, "pull")
	s.tries, s.waits = 1, nil
	resp, err := s.get(ctx, s.repo+"/blobs/"+d.Digest.String(), http.Header{"Range": {byteRange(offset, length)}})
	if err != nil {
		return nil, err
	}
	switch n := resp.ContentLength; {
	case resp.StatusCode != http.StatusPartialContent:
		err = fmt.Errorf("registry %s ignores ranges: %w", s.to.account(), errors.ErrUnsupported)
	case n >= 0 && n != length:
		err = &SizeError{Host: s.to.account(), Digest: d.Digest, Want: length, Got: n}
	default:
		err = checkRange(resp, offset)
	}
	if err != nil {
		_ = resp.Body.Close() // nothing of it is used
		return nil, err
	}
	return faultReader{resp.Body, s}, nil
}

// faultReader names the host in what goes wrong while a body is read.
type faultReader struct {
	io.ReadCloser
	s *session
}

// Read implements [io.Reader].
func (r faultReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF is never wrapped by a Reader
		err = r.s.fault(err)
	}
	return n, err
}

// foreign fetches a layer that is not in the registry from an address that its
// descriptor names. It goes there without credentials; the digest tells whether
// the right thing came.
func (c *Client) foreign(ctx context.Context, address string, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("layer %s is at %q, which cannot be read", d.Digest, bounded(address))
	}
	s := c.anonymous(u.Scheme, u.Host)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	setRange(req.Header, d, offset)
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, s.fault(err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, s.refused(resp)
	}
	return s.from(resp, d, offset)
}
