//go:build linux

package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/wherry-oci/wherry/build/engine"
	"github.com/wherry-oci/wherry/build/userns"
)

// CacheRecord is one thing in the build cache: what a step has made, a synced folder, a
// cache mount, an image that was unpacked.
type CacheRecord struct {
	ID          string
	Parents     []string
	Created     time.Time
	LastUsed    time.Time // zero: never
	Uses        int
	Size        int64 // bytes
	Mutable     bool  // a cache mount or a synced folder
	InUse       bool  // by a build at this moment, or by another record
	Shared      bool
	Description string
	Type        string // BuildKit's: "regular", "source.local", "exec.cachemount", ...
}

func newRecord(u *client.UsageInfo) CacheRecord {
	r := CacheRecord{
		ID: u.ID, Parents: u.Parents, Created: u.CreatedAt, Uses: u.UsageCount, Size: u.Size,
		Mutable: u.Mutable, InUse: u.InUse, Shared: u.Shared, Description: u.Description, Type: string(u.RecordType),
	}
	if u.LastUsedAt != nil {
		r.LastUsed = *u.LastUsedAt
	}
	return r
}

// CacheUsage lists the records of the build cache that fit the filter, in containerd's
// language: "type==exec.cachemount,mutable"; "" is all. What was used last comes first.
// Without a cache there are none.
func CacheUsage(ctx context.Context, store Store, state State, filter string, notice func(string)) ([]CacheRecord, error) {
	var records []CacheRecord
	err := onCache(ctx, store, state, notice, func(c *client.Client) (err error) {
		records, err = cacheUsage(ctx, c, filter)
		return err
	})
	return records, err
}

func cacheUsage(ctx context.Context, c *client.Client, filter string) ([]CacheRecord, error) {
	var records []CacheRecord
	list, err := c.DiskUsage(ctx, client.WithFilter([]string{filter}))
	for _, u := range list {
		records = append(records, newRecord(u))
	}
	slices.SortStableFunc(records, func(a, b CacheRecord) int { return b.LastUsed.Compare(a.LastUsed) })
	return records, err
}

// PruneOptions say what of the build cache goes. The zero value lets all go but what
// builds are made of without having been named: the frontends' own.
type PruneOptions struct {
	All      bool          // these too
	Filter   string        // as in [CacheUsage]
	Unused   time.Duration // only what was not used for so long
	Reserved int64         // bytes that may stay in any case
	MaxUsed  int64         // bytes that the cache may have; 0: no bound
	MinFree  int64         // bytes of the disk that are to be free; 0: no matter
}

// PruneCache removes records, the least recently used first, and tells of each.
func PruneCache(ctx context.Context, store Store, state State, o PruneOptions, notice func(string), told func(CacheRecord)) error {
	return onCache(ctx, store, state, notice, func(c *client.Client) error {
		return prune(ctx, c, o, told)
	})
}

func prune(ctx context.Context, c *client.Client, o PruneOptions, told func(CacheRecord)) error {
	options := []client.PruneOption{
		client.WithKeepOpt(o.Unused, o.Reserved, o.MaxUsed, o.MinFree), client.WithFilter([]string{o.Filter}),
	}
	if o.All {
		options = append(options, client.PruneAll)
	}
	gone := make(chan client.UsageInfo)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for u := range gone {
			told(newRecord(&u))
		}
	}()
	err := c.Prune(ctx, gone, options...)
	close(gone)
	<-done
	return err
}

// onCache works with the engine of a state folder, if there is one.
func onCache(ctx context.Context, store Store, state State, notice func(string), use func(*client.Client) error) error {
	o := engine.Options{Dir: state.folder(), Store: store, Notice: notice, NoMounts: !state.mounts(), NoSteps: state.Isolation == IsolationNone}
	if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	o.UserNS, o.SingleID = userns.Current() != userns.None, userns.Current() == userns.Single
	return withClient(ctx, o, func(c *client.Client, _ *ownEngine) error { return use(c) })
}
