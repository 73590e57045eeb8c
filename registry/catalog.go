package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// pages reads a list of the registry, such as its catalog, page after page. read
// gets each, and says how many entries it has and whether no more are wanted. Of
// the link to the next page only the query is used: a registry cannot send us
// anywhere else with it.
func (s *session) pages(ctx context.Context, path string, read func(raw []byte) (n int, enough bool, err error)) error {
	query, total := "n=1000", 0 // the most that all registries take
	for range maxPages {
		raw, next, err := s.page(ctx, path, query)
		if err != nil {
			return err
		}
		n, enough, err := read(raw)
		if err != nil || enough {
			return err
		}
		if next == "" || next == query {
			return nil
		}
		if total += n; total > maxEntries {
			break
		}
		query = next
	}
	return &StatusError{Host: s.to.account(), Status: http.StatusOK, Message: "its list does not end"}
}

// page reads one page, and the query of the next one if there is any.
func (s *session) page(ctx context.Context, path, query string) (raw []byte, next string, err error) {
	u := s.to.url(path)
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, "", s.fault(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", s.refused(resp)
	}
	defer resp.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, "", s.fault(err)
	}
	return raw, nextQuery(resp.Header.Get("Link")), nil
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
