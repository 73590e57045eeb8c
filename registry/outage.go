package registry

import (
	"errors"
	"net"
	"sync"
	"time"
)

// outage remembers that a host could not be reached, so that of many requests
// only the first waits for it and all others go on to the next host.
type outage struct {
	mu    sync.Mutex
	why   error
	until time.Time
}

// err is why the host is not to be asked now, nil if it may be.
func (o *outage) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Now().Before(o.until) {
		return o.why
	}
	return nil
}

// note how a request to the host ended. Only where no connection came about, or
// nothing over it, the host counts as down.
func (o *outage) note(err error, lasts time.Duration) {
	var dial *net.OpError
	if !errors.Is(err, errStalled) && !(errors.As(err, &dial) && dial.Op == "dial") {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.why, o.until = err, time.Now().Add(lasts)
}
