package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// uploads is how blobs get into the registry that a push goes to. As docker does,
// ggcr begins with POST, sends all in one PATCH, which every registry knows that
// docker pushes to, and ends with PUT. Where that PATCH is refused, a blob is sent
// with the PUT, or in several PATCH requests with a Content-Range, as the
// specification has it; what was found to work is remembered.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
type uploads struct {
	next http.RoundTripper
	push *push
	to   *taking
}

// uploadWay is one in which blobs may be sent.
type uploadWay struct {
	whole bool  // with the PUT
	chunk int64 // bytes of a PATCH at most; 0: any number
}

// taking is what an endpoint is known to take.
type taking struct {
	mu    sync.Mutex
	way   uploadWay
	works bool  // something was uploaded so: what is refused then has another reason
	least int64 // bytes of a PATCH that is not the last, as the registry says
}

// A chunk is of mostChunk bytes where nothing else is known, and of half as many
// each time that is too much, but not of less than leastChunk.
const (
	mostChunk  = 64 << 20
	leastChunk = 64 << 10
)

// uploaded marks the address of a blob that needs no PUT any more.
const uploaded = "wherry-uploaded"

// RoundTrip implements [http.RoundTripper].
func (u *uploads) RoundTrip(req *http.Request) (*http.Response, error) {
	body, ours := req.Body.(*sending)
	switch {
	case req.Method == http.MethodPatch && ours:
		return u.send(req, body.d)
	case req.Method == http.MethodPut && req.URL.Fragment == uploaded:
		return &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}
	resp, err := u.next.RoundTrip(req)
	if err == nil && req.Method == http.MethodPost {
		u.to.announced(resp.Header)
	}
	return resp, err
}

// announced is how short a chunk may be.
func (t *taking) announced(h http.Header) {
	if n, err := strconv.ParseInt(h.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.least = n
	}
}

// send blob d to the address of req, in the way that is known or by each in turn.
func (u *uploads) send(req *http.Request, d v1.Descriptor) (*http.Response, error) {
	way, works := u.to.known()
	if way != (uploadWay{}) {
		_ = req.Body.Close() // parts of d are read one by one
	}
	resp, err := u.by(req, req.URL, d, way)
	if err != nil || works && resp.StatusCode != http.StatusRequestEntityTooLarge {
		return resp, err
	}
	for _, other := range otherWays(resp.StatusCode, d.Size, way.chunk) {
		better := u.anew(req, d, other)
		if better == nil {
			break
		}
		if better.StatusCode/100 != 2 && resp.StatusCode == http.StatusRequestEntityTooLarge {
			discard(better)
			break // a limit is what a person can do something about
		}
		discard(resp)
		if resp = better; resp.StatusCode/100 == 2 {
			break
		}
	}
	return resp, nil
}

// anew sends d once more, in an upload of its own: what became of the one before,
// nobody knows. It is nil if there was no answer.
func (u *uploads) anew(req *http.Request, d v1.Descriptor, way uploadWay) *http.Response {
	to, err := u.begin(req)
	if err != nil {
		return nil
	}
	resp, err := u.by(req, to, d, way)
	if err != nil {
		return nil
	}
	return resp
}

func (t *taking) known() (way uploadWay, works bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.way, t.works
}

// otherWays to try where one PATCH with the whole blob, or with chunk bytes of it,
// was refused with status.
func otherWays(status int, size, chunk int64) []uploadWay {
	whole, chunks := uploadWay{whole: true}, uploadWay{chunk: min(mostChunk, size)}
	switch status {
	case http.StatusRequestEntityTooLarge:
		if chunk > 0 {
			size = chunk
		}
		return []uploadWay{{chunk: min(mostChunk, (size+1)/2)}}
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return []uploadWay{whole, chunks}
	case http.StatusBadRequest, http.StatusLengthRequired, http.StatusUnsupportedMediaType, http.StatusRequestedRangeNotSatisfiable:
		return []uploadWay{chunks, whole}
	}
	return nil
}

// by sends d to an address in one of the ways, and remembers what works.
func (u *uploads) by(req *http.Request, to *url.URL, d v1.Descriptor, way uploadWay) (*http.Response, error) {
	var resp *http.Response
	var err error
	switch {
	case way.whole:
		resp, err = u.whole(req, to, d)
	case way.chunk > 0:
		resp, way.chunk, err = u.chunks(req, to, d, way.chunk)
	default:
		resp, err = u.next.RoundTrip(req)
	}
	if err == nil && resp.StatusCode/100 == 2 {
		u.to.mu.Lock()
		defer u.to.mu.Unlock()
		u.to.way, u.to.works = way, true
	}
	return resp, err
}

// begin a new upload.
func (u *uploads) begin(req *http.Request) (*url.URL, error) {
	s := u.push.session
	post, err := http.NewRequestWithContext(req.Context(), http.MethodPost, s.to.url(s.repo+"/blobs/uploads/").String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := u.next.RoundTrip(post)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusAccepted {
		return nil, s.refused(resp)
	}
	discard(resp)
	u.to.announced(resp.Header)
	return nextUpload(post.URL, resp)
}

// nextUpload is where an upload goes on.
func nextUpload(at *url.URL, resp *http.Response) (*url.URL, error) {
	location := resp.Header.Get("Location")
	if location == "" {
		return at, nil
	}
	return at.Parse(location)
}

// whole sends d with the PUT that ends its upload.
func (u *uploads) whole(req *http.Request, to *url.URL, d v1.Descriptor) (*http.Response, error) {
	at := *to
	q := at.Query()
	q.Set("digest", d.Digest.String())
	at.RawQuery = q.Encode()
	put, err := u.part(req.Context(), http.MethodPut, &at, d, 0, d.Size)
	if err != nil {
		return nil, err
	}
	resp, err := u.next.RoundTrip(put)
	if err == nil && resp.StatusCode == http.StatusCreated {
		discard(resp)
		at.Fragment = uploaded
		resp = accepted(req, &at)
	}
	return resp, err
}

// chunks sends d in several PATCH requests, and returns how large one may be.
func (u *uploads) chunks(req *http.Request, to *url.URL, d v1.Descriptor, chunk int64) (*http.Response, int64, error) {
	u.to.mu.Lock()
	least := max(u.to.least, leastChunk)
	u.to.mu.Unlock()
	for offset := int64(0); offset < d.Size || d.Size == 0; {
		n := min(max(chunk, least), d.Size-offset)
		patch, err := u.part(req.Context(), http.MethodPatch, to, d, offset, n)
		if err != nil {
			return nil, 0, err
		}
		patch.Header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, max(offset+n-1, 0)))
		resp, err := u.next.RoundTrip(patch)
		if err != nil {
			return nil, 0, err
		}
		tooMuch := resp.StatusCode == http.StatusRequestEntityTooLarge && n > least
		if resp.StatusCode/100 != 2 && !tooMuch {
			return resp, 0, nil
		}
		discard(resp)
		if tooMuch {
			chunk = max((n+1)/2, least)
			continue
		}
		if to, err = nextUpload(to, resp); err != nil {
			return nil, 0, err
		}
		if offset += n; d.Size == 0 {
			break
		}
	}
	return accepted(req, to), max(chunk, least), nil
}

// part is a request with length bytes of d from offset on.
func (u *uploads) part(ctx context.Context, method string, to *url.URL, d v1.Descriptor, offset, length int64) (*http.Request, error) {
	open := func() (io.ReadCloser, error) { return u.push.openPart(ctx, d, offset, length) }
	body, err := open()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), body)
	if err != nil {
		_ = body.Close() // nothing was sent of it
		return nil, err
	}
	req.GetBody, req.ContentLength = open, length
	if length == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return req, nil
}

// accepted is the answer to a PATCH that was carried out in another way.
func accepted(req *http.Request, at *url.URL) *http.Response {
	return &http.Response{
		StatusCode: http.StatusAccepted, Header: http.Header{"Location": {at.String()}}, Body: http.NoBody, Request: req,
	}
}

// openPart reads length bytes of d from offset on.
func (p *push) openPart(ctx context.Context, d v1.Descriptor, offset, length int64) (io.ReadCloser, error) {
	r, err := p.openAt(ctx, d, offset)
	if err != nil {
		return nil, p.failed(d, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(&sending{ReadCloser: r, p: p, d: d, sent: offset}, length), r}, nil
}

// meant is the status that a registry means which says 200 or 204 to everything.
func meant(req *http.Request, resp *http.Response) int {
	if resp.StatusCode/100 != 2 || !strings.Contains(req.URL.Path, "/blobs/uploads") && req.Method != http.MethodPut {
		return resp.StatusCode
	}
	switch req.Method {
	case http.MethodPost:
		if resp.StatusCode == http.StatusCreated || !strings.Contains(resp.Header.Get("Location"), "/uploads/") && req.URL.Query().Get("mount") != "" {
			return http.StatusCreated
		}
		return http.StatusAccepted
	case http.MethodPatch:
		return http.StatusAccepted
	case http.MethodPut:
		return http.StatusCreated
	}
	return resp.StatusCode
}
