//go:build linux

package build

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/version"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/farm"
)

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	Node      farm.Node
	Err       error         // why it can't be reached; the rest is zero then
	Version   string        // of its BuildKit
	Platforms []v1.Platform // whose steps it runs, its own first
	Labels    map[string]string
	Records   int   // in its build cache
	Cache     int64 // bytes that these take
	Reclaim   int64 // ... of which can be let go
	Policies  []GCPolicy
}

// GCPolicy is a rule by which a node lets go of its cache.
type GCPolicy struct {
	All                         bool
	Filters                     []string
	Keep                        time.Duration
	Reserved, MaxUsed, MinSpace int64 // bytes
}

// StatusOptions say what [Status] asks for.
type StatusOptions struct {
	Timeout time.Duration // for all that a node is asked; 0: [farm.DefaultWait]
	Wait    bool          // wait for a node that is about to start
	Cache   bool          // ask for the records of the cache too
}

// Status asks all nodes at once.
func Status(ctx context.Context, nodes []farm.Node, o StatusOptions) []NodeStatus {
	engine.Quiet()
	if o.Timeout <= 0 {
		o.Timeout = farm.DefaultWait
	}
	list := make([]NodeStatus, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { list[i] = statusOf(ctx, n, o) })
	}
	all.Wait()
	return list
}

func statusOf(ctx context.Context, n farm.Node, o StatusOptions) NodeStatus {
	s := NodeStatus{Node: n}
	if n.Endpoint == farm.Local {
		s.Version, s.Platforms = EngineVersion(), runnable()
		return s
	}
	n.Wait = o.Timeout
	bounded, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var c *farm.Conn
	var err error
	if o.Wait {
		c, err = farm.Connect(ctx, n)
	} else {
		c, err = farm.Once(bounded, n)
	}
	if err != nil {
		s.Err = err
		return s
	}
	defer func() { _ = c.Close() }() // it has said all
	s.Version, s.Platforms, s.Labels = c.Version, c.Platforms(), c.Worker.Labels
	for _, p := range c.Worker.GCPolicy {
		s.Policies = append(s.Policies, GCPolicy{
			All: p.All, Filters: p.Filter, Keep: p.KeepDuration, Reserved: p.ReservedSpace, MaxUsed: p.MaxUsedSpace, MinSpace: p.MinFreeSpace,
		})
	}
	if !o.Cache {
		return s
	}
	records, err := c.Client.DiskUsage(ctx)
	s.Err = err
	for _, r := range records {
		s.Records++
		s.Cache += r.Size
		if !r.InUse {
			s.Reclaim += r.Size
		}
	}
	return s
}

// EngineVersion is the version of the BuildKit within this program.
func EngineVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version.Version
	}
	for _, m := range info.Deps {
		if m.Path == version.Package {
			return m.Version
		}
	}
	return version.Version
}

// FarmCacheUsage is [CacheUsage] on the nodes of a farm that are reached otherwise than by this
// process, one after another. A node that fails does not keep the others from being asked.
func FarmCacheUsage(ctx context.Context, nodes []farm.Node, filter string) ([]CacheRecord, error) {
	var all []CacheRecord
	err := onNodes(ctx, nodes, func(c *client.Client) error {
		records, err := cacheUsage(ctx, c, filter)
		all = append(all, records...)
		return err
	})
	return all, err
}

// FarmPruneCache is [PruneCache] on the nodes of a farm, as [FarmCacheUsage].
func FarmPruneCache(ctx context.Context, nodes []farm.Node, o PruneOptions, told func(CacheRecord)) error {
	return onNodes(ctx, nodes, func(c *client.Client) error { return prune(ctx, c, o, told) })
}

func onNodes(ctx context.Context, nodes []farm.Node, do func(*client.Client) error) error {
	engine.Quiet()
	var errs []error
	for _, n := range nodes {
		if n.Endpoint == farm.Local {
			continue // by who calls, in its namespaces
		}
		errs = append(errs, onOneNode(ctx, n, do))
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
}

func onOneNode(ctx context.Context, n farm.Node, do func(*client.Client) error) error {
	bounded, cancel := context.WithTimeout(ctx, farm.DefaultWait)
	defer cancel()
	c, err := farm.Once(bounded, n)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // what was done is done
	if err := do(c.Client); err != nil {
		return &farm.NodeError{Node: n.Name, Endpoint: n.Endpoint, Err: err}
	}
	return nil
}
