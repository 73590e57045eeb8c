package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// list is what pages reads: a path below the API, the query of the first page,
// and the media type to ask for if any.
type list struct{ path, query, accept string }

// page is one of a list.
type page struct {
	raw    []byte
	header http.Header
}

// longPages asks for the most entries of a page that all registries take.
const longPages = "n=1000"

// pages reads a list of the registry, such as its catalog, page after page. read
// gets each, and says how many entries it has and whether no more are wanted. Of
// the link to the next page only the query is used: a registry cannot send us
// anywhere else with it.
func (s *session) pages(ctx context.Context, l list, read func(p page) (n int, enough bool, err error)) error {
	total := 0
	for range maxPages {
		p, err := s.page(ctx, l)
		if err != nil {
			return err
		}
		n, enough, err := read(p)
		if err != nil || enough {
			return err
		}
		next := nextQuery(p.header.Get("Link"))
		if next == "" || next == l.query {
			return nil
		}
		if total += n; total > maxEntries {
			break
		}
		l.query = next
	}
	return s.endless()
}

func (s *session) endless() error {
	return &StatusError{Host: s.to.account(), Status: http.StatusOK, Message: "its list does not end"}
}

// page reads the one that l begins with.
func (s *session) page(ctx context.Context, l list) (page, error) {
	u := s.to.url(l.path)
	u.RawQuery = l.query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return page{}, err
	}
	if l.accept != "" {
		req.Header.Set("Accept", l.accept)
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return page{}, s.fault(err)
	}
	if resp.StatusCode != http.StatusOK {
		return page{}, s.refused(resp)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return page{}, s.fault(err)
	}
	return page{raw, resp.Header}, nil
}

// nextQuery of a header such as `</v2/x/tags/list?n=2&last=b>; rel="next"`.
func nextQuery(link string) string {
	address, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return ""
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.RawQuery
}
