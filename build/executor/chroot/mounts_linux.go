package chroot

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sync/semaphore"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// guest is one mount of a step, resolved: what is to appear at dest. One of source, secret and empty is set.
type guest struct {
	dest     string
	source   string // the folder, file or socket that is bound
	selector string // the part of it that is wanted
	readonly bool
	secret   *secret
	empty    bool // a tmpfs
}

// secret is a file of its own.
type secret struct {
	data     []byte
	mode     fs.FileMode
	uid, gid int
}

// resolveMounts asks for the mounts' sources, in the order in which their targets have to be made, and locks them.
func (e *chrootExecutor) resolveMounts(ctx context.Context, mounts []executor.Mount, undo *step.Cleanups) ([]*guest, error) {
	guests := make([]*guest, 0, len(mounts))
	for _, m := range mounts {
		g, err := resolveMount(ctx, m, undo)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
		}
		guests = append(guests, g)
	}
	// A mount below another one has to come after it, in whatever order the Dockerfile names them.
	slices.SortStableFunc(guests, func(a, b *guest) int { return strings.Compare(a.dest, b.dest) })
	if err := e.sources.acquire(ctx, guests); err != nil {
		return nil, err
	}
	undo.Add(func() error { e.sources.release(guests, false); return nil })
	return guests, nil
}

func resolveMount(ctx context.Context, m executor.Mount, undo *step.Cleanups) (*guest, error) {
	g := &guest{dest: path.Clean("/" + m.Dest), selector: m.Selector, readonly: m.Readonly}
	if m.Src == nil {
		return nil, fmt.Errorf("it has no source")
	}
	ref, err := m.Src.Mount(ctx, m.Readonly)
	if err != nil {
		return nil, err
	}
	if g.secret, err = secretOf(ref); g.secret != nil || err != nil {
		return g, err
	}
	list, release, err := ref.Mount()
	if err != nil {
		return nil, err
	}
	if release != nil {
		undo.Add(release)
	}
	if len(list) == 1 && list[0].Type == "tmpfs" {
		g.empty = true
		return g, nil
	}
	if g.source, err = bound(list); err != nil {
		return nil, err
	}
	g.readonly = g.readonly || slices.Contains(list[0].Options, "ro")
	return g, nil
}

// secretOf takes the data out of BuildKit's mount of a secret; nil if ref is another kind. Its own way is to mount a
// tmpfs for it, which is impossible here, and it has no other.
func secretOf(ref executor.MountableRef) (*secret, error) {
	v := reflect.ValueOf(ref)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Elem().Type().Name() != "secretMountInstance" {
		return nil, nil
	}
	field := func(v reflect.Value, name string) reflect.Value {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		return v.FieldByName(name)
	}
	mount := field(v.Elem(), "sm")
	data, opt := field(mount, "data"), field(field(mount, "mount"), "SecretOpt")
	mode, uid, gid := field(opt, "Mode"), field(opt, "Uid"), field(opt, "Gid")
	if data.Kind() != reflect.Slice || !mode.CanUint() || !uid.CanUint() || !gid.CanUint() {
		return nil, fmt.Errorf("%T is not the secret that it was", ref)
	}
	return &secret{data: slices.Clone(data.Bytes()), mode: fs.FileMode(mode.Uint() & 0o777), uid: int(uid.Uint()), gid: int(gid.Uint())}, nil
}

// sourceLocks keep a folder from being moved into two steps, and from being copied while it is not where it belongs.
// Its zero value is ready for use.
type sourceLocks struct {
	mu    sync.Mutex
	locks map[string]*sourceLock
}

type sourceLock struct {
	sem   *semaphore.Weighted
	users int
}

// weights says how much of each source's lock guests need, by source: the writable ones all of it.
func weights(guests []*guest) map[string]int64 {
	out := map[string]int64{}
	for _, g := range guests {
		switch {
		case g.source == "":
		case g.readonly:
			out[g.source] = max(out[g.source], 1)
		default:
			out[g.source] = math.MaxInt64
		}
	}
	return out
}

func sortedKeys(m map[string]int64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// acquire locks the sources of all guests, in one order for all steps, so that no two wait for each other.
func (l *sourceLocks) acquire(ctx context.Context, guests []*guest) error {
	need := weights(guests)
	for i, source := range sortedKeys(need) {
		l.mu.Lock()
		if l.locks == nil {
			l.locks = map[string]*sourceLock{}
		}
		lock := l.locks[source]
		if lock == nil {
			lock = &sourceLock{sem: semaphore.NewWeighted(math.MaxInt64)}
			l.locks[source] = lock
		}
		lock.users++
		l.mu.Unlock()
		if err := lock.sem.Acquire(ctx, need[source]); err != nil {
			l.drop(source, 0)
			for _, got := range sortedKeys(need)[:i] {
				l.drop(got, need[got])
			}
			return context.Cause(ctx)
		}
	}
	return nil
}

// release unlocks the sources of guests: only those that were copied, or all that have not been yet.
func (l *sourceLocks) release(guests []*guest, copied bool) {
	for source, weight := range weights(guests) {
		if copied && weight != 1 {
			continue
		}
		l.drop(source, weight)
	}
	if copied {
		for _, g := range guests {
			if g.readonly && weights(guests)[g.source] == 1 {
				g.source = ""
			}
		}
	}
}

func (l *sourceLocks) drop(source string, weight int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock := l.locks[source]
	if weight > 0 {
		lock.sem.Release(weight)
	}
	if lock.users--; lock.users == 0 {
		delete(l.locks, source)
	}
}

// exists says whether there is anything at p.
func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}
