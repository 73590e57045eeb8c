//go:build linux

package engine

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/local"
	"github.com/moby/buildkit/util/progress"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/time/rate"
)

// Folder is a folder that a build of this process reads. Its files are copied into the
// build cache directly, and only those that have changed since the last build: BuildKit's
// own source sends all that is known of each of them, and the changed ones, through four
// layers of gRPC.
type Folder struct {
	Dir  string                       // absolute
	Fail func(path string, err error) // told of what can't be read: the build can't go on
}

// folders are those of the builds of this process, by the session's key and name. Another
// process that has joined may see other files under the same path.
type folders struct {
	known    sync.Map
	sessions sync.Map // of this process
}

func folderKey(sharedKey, name string) string { return sharedKey + "\x00" + name }

// ShareFolder has builds whose session has this key read a folder directly.
func (e *Engine) ShareFolder(sharedKey, name string, f Folder) {
	e.worker.folders.known.Store(folderKey(sharedKey, name), f)
}

// folderSource is BuildKit's source of folders, which still serves those of other
// processes, and the few files that the frontend asks for first.
type folderSource struct {
	source.Source
	cache   cache.Accessor
	folders *folders
	dir     string // where it is kept what was seen of each folder
	chmod   func(path string, mode fs.FileMode) error
}

func (s *folderSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, vtx solver.Vertex) (source.SourceInstance, error) {
	inst, err := s.Source.Resolve(ctx, id, sm, vtx)
	folder, ok := id.(*local.LocalIdentifier)
	if err != nil || !ok || folder.Differ != fsutil.DiffMetadata || folder.MetadataOnly {
		return inst, err
	}
	return &folderInstance{SourceInstance: inst, source: s, id: *folder, sessions: sm}, nil
}

type folderInstance struct {
	source.SourceInstance
	source   *folderSource
	id       local.LocalIdentifier
	sessions *session.Manager
}

func (i *folderInstance) Snapshot(ctx context.Context, jc solver.JobContext) (cache.ImmutableRef, error) {
	sharedKey, f, ok := i.folder(ctx)
	if !ok {
		return i.SourceInstance.Snapshot(ctx, jc)
	}
	files, err := walkFolder(ctx, f.Dir, i.id)
	if err != nil || files.odd {
		return i.SourceInstance.Snapshot(ctx, jc) // which says what is wrong in the words of its stories
	}
	seen := i.seen(sharedKey)
	before := readSeen(seen)
	if ref := i.unchanged(ctx, files, before); ref != nil {
		return ref, nil
	}
	return i.sync(ctx, f, files, before, seen)
}

// folder is what this process shares under the instance's name, if its session is one of
// this process.
func (i *folderInstance) folder(ctx context.Context) (sharedKey string, f Folder, ok bool) {
	if _, own := i.source.folders.sessions.Load(i.id.SessionID); !own {
		return "", Folder{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	caller, err := i.sessions.Get(ctx, i.id.SessionID, false)
	if err != nil {
		return "", Folder{}, false
	}
	found, ok := i.source.folders.known.Load(folderKey(caller.SharedKey(), i.id.Name))
	if !ok {
		return "", Folder{}, false
	}
	return caller.SharedKey(), found.(Folder), true
}

// seen is the file in which it is kept what was seen of the folder through these patterns.
func (i *folderInstance) seen(sharedKey string) string {
	key, _ := json.Marshal([]any{ // strings are always JSON
		sharedKey, i.id.Name, i.id.SharedKeyHint, i.id.IncludePatterns, i.id.ExcludePatterns, i.id.FollowPaths,
	})
	return filepath.Join(i.source.dir, fmt.Sprintf("%x", sha256.Sum256(key)))
}

// unchanged returns the copy of the folder as it was, if it is so still.
func (i *folderInstance) unchanged(ctx context.Context, files *folderFiles, before *seenFolder) cache.ImmutableRef {
	if before == nil || !files.same(before) {
		return nil
	}
	ref, err := i.source.cache.Get(ctx, before.Ref, nil)
	if err != nil { // it was pruned
		return nil
	}
	return ref
}

// sync brings the copy of the folder up to date.
func (i *folderInstance) sync(ctx context.Context, f Folder, files *folderFiles, before *seenFolder, seen string) (_ cache.ImmutableRef, err error) {
	mutable, before, err := i.copyToChange(ctx, before)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil { // what is in it now, nobody knows
			_ = mutable.SetCachePolicyDefault()
			contenthash.ClearCacheContext(mutable)
			_ = os.Remove(seen)
			go func() { _ = mutable.Release(context.WithoutCancel(ctx)) }()
		}
	}()
	mount, err := mutable.Mount(ctx, false, nil)
	if err != nil {
		return nil, err
	}
	mounter := snapshot.LocalMounter(mount)
	dest, err := mounter.Mount()
	if err != nil {
		return nil, err
	}
	hashes, err := contenthash.GetCacheContext(ctx, mutable)
	if err == nil {
		s := &folderSync{from: f, to: dest, hashes: hashes, told: transferProgress(ctx, i.id.Name), chmod: i.source.chmod}
		err = s.run(ctx, files, before)
		tell(ctx, Facts{Folder: i.id.Name, Changed: s.changed[:min(len(s.changed), maxChanged)], Count: len(s.changed)})
	}
	if unmountErr := mounter.Unmount(); err == nil {
		err = unmountErr
	}
	if err == nil {
		err = contenthash.SetCacheContext(ctx, mutable, hashes)
	}
	if err != nil {
		return nil, err
	}
	id := mutable.ID()
	ref, err := mutable.Commit(ctx)
	if err != nil {
		return nil, err
	}
	return ref, writeSeen(seen, &seenFolder{Copy: id, Ref: ref.ID(), Files: files.settled()})
}

// copyToChange is the copy that the folder had, or a new one that has nothing in it yet.
func (i *folderInstance) copyToChange(ctx context.Context, before *seenFolder) (cache.MutableRef, *seenFolder, error) {
	if before != nil {
		if m, err := i.source.cache.GetMutable(ctx, before.Copy); err == nil {
			return m, before, nil
		}
	}
	m, err := i.source.cache.New(ctx, nil, nil, cache.CachePolicyRetain, cache.WithRecordType(client.UsageRecordTypeLocalSource),
		cache.WithDescription("local source for "+i.id.Name))
	return m, &seenFolder{}, err
}

// transferProgress shows how many bytes were copied.
func transferProgress(ctx context.Context, name string) func(n int64, last bool) {
	limit := rate.NewLimiter(rate.Every(100*time.Millisecond), 1)
	pw, _, _ := progress.NewFromContext(ctx)
	now := time.Now()
	status := progress.Status{Started: &now, Action: "transferring"}
	var mu sync.Mutex
	return func(n int64, last bool) {
		mu.Lock()
		defer mu.Unlock()
		status.Current += int(n)
		if !last && !limit.Allow() {
			return
		}
		if last {
			done := time.Now()
			status.Completed = &done
		}
		_ = pw.Write("transferring "+name+":", status) // nothing depends on the display
		if last {
			_ = pw.Close()
		}
	}
}
