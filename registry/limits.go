package registry

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// limits bound how long and how often a registry is asked, and how much of what
// it sends is read.
type limits struct {
	dial     time.Duration // until a connection stands, and again until TLS does
	answer   time.Duration // until the answer to an upload begins
	stall    time.Duration // in which at least stallBytes of an answer have to come
	stalls   int           // after which a registry that sends nothing is given up
	tries    int           // of one request, and of a blob without progress
	down     time.Duration // in which a host that was not to be reached isn't asked again, if there are others
	backoff  time.Duration // before the second try; doubles with each one
	patience time.Duration // the longest wait for a registry that says when to come back
}

func defaultLimits() limits {
	return limits{
		dial:     10 * time.Second,
		answer:   5 * time.Minute,
		stall:    30 * time.Second,
		stalls:   2,
		tries:    5,
		down:     time.Minute,
		backoff:  500 * time.Millisecond,
		patience: 60 * time.Second,
	}
}

const (
	// stallBytes is the least that counts as progress: a registry that sends a
	// byte a second has stalled.
	stallBytes = 4 << 10

	// maxManifest is the size that the distribution specification wants
	// registries to accept at least; none are known that take more.
	maxManifest = 4 << 20

	// maxHeader bounds the headers of an answer, and maxRedirects how many
	// redirects of a request are followed.
	maxHeader    = 1 << 20
	maxRedirects = 10

	// maxError bounds the body of an error, and maxMessage what is shown of it.
	maxError   = 64 << 10
	maxMessage = 256

	// maxToken bounds the answer of a token server, maxPage one page of tags or
	// repositories, and maxPages and maxEntries all of them.
	maxToken   = 1 << 20
	maxPage    = 16 << 20
	maxPages   = 10_000
	maxEntries = 5_000_000

	// maxReferrers bounds what refers to one manifest.
	maxReferrers = 10_000

	// maxSearch bounds the answer to a search, maxDescription what is kept of a
	// description in it.
	maxSearch      = 4 << 20
	maxDescription = 4 << 10

	// longWait is a pause that a person wonders about.
	longWait = 2 * time.Second

	// parallel is how many blobs of a push travel at once, surveyors how many
	// small questions about a repository.
	parallel  = 4
	surveyors = 8
)

// pause before try number n+1. A registry's word counts more than ours; ok is
// false where it asks for more patience than there is.
func (l limits) pause(n int, retryAfter time.Duration) (d time.Duration, ok bool) {
	if retryAfter > l.patience {
		return 0, false
	}
	d = l.backoff << (n - 1)
	d += time.Duration(rand.Int64N(int64(d)/2 + 1)) // so that parallel requests spread
	return max(min(d, l.patience), retryAfter), true
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, 10.2.3).
// It is 0 where there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}
