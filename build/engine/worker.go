//go:build linux

package engine

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/diff/apply"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	bkexecutor "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/executor/resources"
	"github.com/moby/buildkit/executor/runcexecutor"
	imageexporter "github.com/moby/buildkit/exporter/containerimage"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/snapshot/imagerefchecker"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/worker/base"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/executor/chroot"
	"github.com/wherry-oci/wherry/build/userns"
)

// namespace is containerd's word for whose content and snapshots these are.
const namespace = "buildkit"

// layoutWorker is BuildKit's worker with two seams to the image store: where FROM
// is resolved (from.go) and where an image result ends (export.go).
type layoutWorker struct {
	*base.Worker
	store     Store
	content   *sharedContent
	images    *imageexporter.ImageWriter
	folders   folders
	files     files
	snapshots *storage

	emulation   *Emulation                                 // nil: there are no steps
	withFormats func(formats []string) bkexecutor.Executor // for steps with an emulator of their own
}

func newWorker(ctx context.Context, o Options, st *state, name string) (*layoutWorker, error) {
	if o.NoMounts {
		// Before anything is opened that may collect: a cache may be within what a killed step has left.
		if err := chroot.Recover(st.path("executor")); err != nil {
			return nil, fmt.Errorf("take out what a killed step has put in: %w", err)
		}
	}
	files, err := openStorage(o, st, name) //nolint:contextcheck // opens local files only
	if err != nil {
		return nil, fmt.Errorf("open the snapshots: %w", err)
	}
	shared := &sharedContent{dir: st.path("content"), images: o.Store}
	opt := base.WorkerOpt{
		Root:             st.dir,
		Labels:           map[string]string{},
		Platforms:        []ocispecs.Platform{platforms.Normalize(platforms.DefaultSpec())},
		NetworkProviders: networks(),
		MountPoolRoot:    st.path("cachemounts"),
	}
	if opt.ID, err = base.ID(st.dir); err != nil {
		return nil, err
	}
	if err := openStores(ctx, &opt, st, shared, files); err != nil {
		return nil, err
	}
	if err := addExecutor(&opt, o, st, files); err != nil {
		return nil, err
	}
	steps, kills := opt.Executor, killCounter(o.Runtime == "")
	opt.Executor = memoryWatch{steps, kills}
	opt.RegistryHosts = o.Hosts
	opt.ImageStore = &fromStore{images: o.Store, content: opt.ContentStore}
	if err := dropLeases(ctx, opt.LeaseManager); err != nil {
		return nil, err
	}
	w := &layoutWorker{store: o.Store, content: shared, snapshots: files}
	if !o.NoSteps {
		w.emulation = NewEmulation(o)
	}
	w.withFormats = func(formats []string) bkexecutor.Executor {
		emulated, ok := executor.WithFormats(steps, formats)
		if !ok { // another one is never asked for it
			emulated = steps
		}
		return memoryWatch{emulated, kills}
	}
	if w.images, err = imageexporter.NewImageWriter(imageexporter.WriterOpt{
		Snapshotter: opt.Snapshotter, ContentStore: opt.ContentStore, Applier: opt.Applier, Differ: opt.Differ,
	}); err != nil {
		return nil, err
	}
	w.Worker, err = newBase(opt, o, &w.folders, files)
	return w, err
}

// newBase is BuildKit's base.NewWorker without its probe for git, which starts a
// process at every build, and with our sources.
func newBase(opt base.WorkerOpt, o Options, shared *folders, files *storage) (*base.Worker, error) {
	w := &base.Worker{WorkerOpt: opt}
	var err error
	if w.CacheMgr, err = cache.NewManager(cache.ManagerOpt{
		Snapshotter:     files.forMerges(opt.Snapshotter),
		ContentStore:    opt.ContentStore,
		PruneRefChecker: imagerefchecker.New(imagerefchecker.Opt{ImageStore: opt.ImageStore, ContentStore: opt.ContentStore}),
		Applier:         opt.Applier,
		Differ:          opt.Differ,
		LeaseManager:    opt.LeaseManager,
		GarbageCollect:  opt.GarbageCollect,
		MetadataStore:   opt.MetadataStore,
		Root:            opt.Root,
		MountPoolRoot:   opt.MountPoolRoot,
	}); err != nil {
		return nil, err
	}
	if files.folders != nil {
		w.CacheMgr = &folderCache{w.CacheMgr, files.folders, files.mountless}
	}
	return w, addSources(w, o, shared, files)
}

// collectCrashed drops the file systems that steps were writing when their engine was
// killed. What they were to become is not known any more; cache mounts and synced
// folders are records of other types, and stay.
func (w *layoutWorker) collectCrashed(ctx context.Context) error {
	dropped := make(chan client.UsageInfo)
	go func() {
		for range dropped { // nobody wants the list
		}
	}()
	defer close(dropped)
	return w.Prune(ctx, dropped, client.PruneInfo{All: true, Filter: []string{"mutable,type==regular"}})
}

// dropLeases ends the temporary leases of builds that were killed.
func dropLeases(ctx context.Context, m *leaseutil.Manager) error {
	stale, err := m.List(ctx, `labels."buildkit/lease.temporary"`)
	if err != nil {
		return err
	}
	for _, l := range stale {
		if err := m.Delete(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// openStores opens the databases and what stands on them: content, snapshots,
// leases.
func openStores(ctx context.Context, opt *base.WorkerOpt, st *state, shared *sharedContent, files *storage) error {
	blobs, err := local.NewStore(shared.dir)
	if err != nil {
		return fmt.Errorf("open the build's content: %w", err)
	}
	boltDB, err := openBolt(st.path("containerdmeta.db"))
	if err != nil {
		return fmt.Errorf("open the build's metadata: %w", err)
	}
	opt.ContentMetadata = boltDB
	mdb := ctdmetadata.NewDB(boltDB, blobs, map[string]snapshots.Snapshotter{files.name: files})
	if err := mdb.Init(ctx); err != nil {
		return fmt.Errorf("open the build's metadata: %w", err)
	}
	if opt.MetadataStore, err = metadata.NewStore(st.path("metadata_v2.db")); err != nil {
		return err
	}
	err = opt.MetadataStore.DB().View(func(tx *bolt.Tx) error { // the one way to its options
		tx.DB().NoSync = true
		return nil
	})
	if err != nil {
		return err
	}
	shared.Store = mdb.ContentStore()
	opt.ContentStore = containerdsnapshot.NewContentStore(shared, namespace)
	opt.Snapshotter = containerdsnapshot.NewSnapshotter(files.name, mdb.Snapshotter(files.name), namespace, nil)
	opt.LeaseManager = leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(mdb), namespace)
	opt.GarbageCollect = shared.withCollectionLock(mdb.GarbageCollect)
	if files.folders != nil {
		opt.Applier, opt.Differ = files.folders.Applier(opt.ContentStore), files.folders.Differ(opt.ContentStore)
		return nil
	}
	opt.Applier = apply.NewFileSystemApplier(opt.ContentStore)
	opt.Differ = walking.NewWalkingDiff(opt.ContentStore)
	return nil
}

// networks are the modes a step may have. (BuildKit's own constructor would link
// CNI and a proxy.)
func networks() map[pb.NetMode]network.Provider {
	host := network.NewHostProvider()
	return map[pb.NetMode]network.Provider{
		pb.NetMode_UNSET: host,
		pb.NetMode_HOST:  host,
		pb.NetMode_NONE:  network.NewNoneProvider(),
	}
}

// addExecutor chooses who runs the steps.
func addExecutor(opt *base.WorkerOpt, o Options, st *state, files *storage) (err error) {
	if o.NoSteps {
		opt.Executor = noStepsExecutor{}
		return nil
	}
	root := st.path("executor")
	if o.NoMounts {
		opt.Executor, err = chroot.New(chroot.Options{Root: root})
		return err
	}
	if o.Runtime == "" {
		options := executor.Options{
			Root: root, Rootless: o.UserNS, SingleID: o.SingleID, HostPID: o.HostPID, Networks: opt.NetworkProviders,
			Domain: files.domain, OwnProfile: o.OwnProfile,
		}
		if files.aside {
			options.Owners = files.folders
		}
		opt.Executor, err = executor.New(options)
		return err
	}
	if o.SingleID { // a runtime's steps are asked about no owners
		if err := userns.FakeOwnership(); err != nil {
			return err
		}
	}
	mode := oci.ProcessSandbox
	if o.HostPID {
		mode = oci.NoProcessSandbox
	}
	if opt.ResourceMonitor, err = resources.NewMonitor(); err != nil {
		return err
	}
	opt.Executor, err = runcexecutor.New(runcexecutor.Opt{
		Root: root, CommandCandidates: []string{o.Runtime}, Rootless: o.UserNS, ProcessMode: mode,
		ResourceMonitor: opt.ResourceMonitor,
	}, opt.NetworkProviders)
	return err
}
