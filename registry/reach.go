package registry

import (
	"context"
	"sync"
	"time"
)

// Reach is what came of asking one of the hosts that serve a registry.
type Reach struct {
	Host string        // as the configuration spells it: "registry-1.docker.io", "mirror.corp:5000"
	Took time.Duration // until it had answered, with the way to its token server and back
	// Err is why it can't be used: an [*UnauthorizedError] if it answers, but not to who asks, or one of those that
	// [Client.Get] has for a registry that cannot be asked.
	Err error
}

// Reach asks each host that serves a registry, as names spell it, for the base of its API, all at once and only once.
// They come in the order in which pulls ask them. The error is one of the configuration.
func (c *Client) Reach(ctx context.Context, host string) ([]Reach, error) {
	host, err := registryHost(host)
	if err != nil {
		return nil, err
	}
	endpoints, err := c.allEndpoints(ctx, host)
	if err != nil {
		return nil, err
	}
	found := make([]Reach, len(endpoints))
	var asked sync.WaitGroup
	for i, to := range endpoints {
		asked.Go(func() {
			begun := time.Now()
			s := c.hostSession(to)
			s.tries = 1
			found[i] = Reach{Host: to.host, Err: s.ping(ctx)}
			found[i].Took = time.Since(begun)
		})
	}
	asked.Wait()
	return found, nil
}
