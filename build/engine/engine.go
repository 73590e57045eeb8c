//go:build linux

// Package engine is the one place that assembles BuildKit: worker, caches,
// frontends and controller, in this process, without a daemon.
//
// An [Engine] keeps its state in one folder and works with one image store. It
// hands out BuildKit's own client, connected in memory, and can serve other
// processes of the same user through a listener. Blobs are shared with the
// image store by hard links in both directions; nothing is copied where the
// file system can link.
//
// It does not decide who may run an engine (package build elects one per state
// folder), knows no flags, and never writes to the terminal.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/defaults"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	bkconfig "github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/worker"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/test/bufconn"

	"github.com/distribution/reference"
)

// pipeSize is the buffer, in bytes, of each in-memory connection.
const pipeSize = 1 << 20

// Store is the image store an engine works with. Results are named there, and
// FROM is answered from it before any registry is asked.
type Store interface {
	// Lookup returns what the store has under name for platform p: for a name
	// with a digest, the manifest or index of exactly that digest; otherwise the
	// image manifest for p. The manifest and its config are present. It never
	// answers with another platform's image; a [*platform.NoMatchError] then says
	// which platforms there are.
	Lookup(ctx context.Context, name reference.Named, p v1.Platform) (v1.Descriptor, error)
	// BlobPath is where the blob h is kept, if the store has it.
	BlobPath(h v1.Hash) string
	// Adopt takes everything src's descriptor reaches into the store, by hard link
	// where src has a path, and lets names point at it.
	Adopt(ctx context.Context, src Source, names []string) (v1.Descriptor, error)
}

// Options say what to assemble. Dir and Store have to be on one file system for
// blobs to be shared instead of copied.
type Options struct {
	Dir        string               // state folder; created with mode 0700
	Store      Store                // required
	Hosts      docker.RegistryHosts // how registries are reached; nil: each by its own name
	Transport  http.RoundTripper    // how contexts and files that have URLs are got; nil: net/http's default
	Runtime    string               // path of a runc-like binary; empty: wherry's own executor
	OwnLabel   bool                 // steps of wherry's own executor keep the SELinux label of this process
	OwnProfile bool                 // ... and its AppArmor profile
	UserNS     bool                 // this process is root of a user namespace only
	SingleID   bool                 // ... in which one id is mapped
	CacheSize  int64                // bytes that the build cache may have; 0: as much as leaves a tenth of the disk free
	HostPID    bool                 // /proc can't be mounted anew: steps share the outer pid namespace
	NoMounts   bool                 // nothing can be mounted: snapshots are folders, and steps run by chroot
	NoSteps    bool                 // steps can't be run either: a RUN is refused. Owners are kept beside the files
	Notice     func(string)
}

// Engine is a BuildKit solver in this process.
type Engine struct {
	controller *control.Controller
	server     *grpc.Server
	sessions   *session.Manager
	pipe       *bufconn.Listener
	worker     *layoutWorker
	state      *state
}

// New opens the state folder and assembles an engine on it. No other process may
// use the folder meanwhile: the caller holds a lock.
func New(ctx context.Context, o Options) (*Engine, error) {
	registerErrors()
	nameBuildKit()
	Quiet()
	if _, err := mkdir(o.Dir); err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	name := chooseSnapshots(o)
	st, err := openState(filepath.Join(o.Dir, name), o.Notice)
	if err != nil {
		return nil, fmt.Errorf("build state: %w", err)
	}
	w, err := newWorker(ctx, o, st, name)
	if err != nil {
		return nil, err
	}
	if st.crashed {
		if err := w.collectCrashed(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("collect what a killed build has left: %w", err), w.Close())
		}
	}
	e := &Engine{pipe: bufconn.Listen(pipeSize), worker: w, state: st}
	if e.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	if e.controller, err = newController(ctx, w, e.sessions, st); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	e.server = newServer()
	e.controller.Register(e.server)
	go e.Serve(e.pipe)
	return e, nil
}

// Quiet silences the logs of BuildKit, containerd and gRPC: what matters of them comes
// back as errors.
func Quiet() {
	logrus.SetOutput(io.Discard)
	log.SetOutput(io.Discard) //nolint:forbidigo // net/http2 writes there of a session that ends before it has begun
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

func newServer() *grpc.Server {
	return grpc.NewServer(
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, plainErrors),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor),
	)
}

func newController(ctx context.Context, w *layoutWorker, sessions *session.Manager, st *state) (*control.Controller, error) {
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, err
	}
	links, err := bboltcachestorage.NewStore(st.path("cache.db"))
	if err != nil {
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	history, err := openBolt(st.path("history.db"))
	if err != nil {
		return nil, fmt.Errorf("open the build history: %w", err)
	}
	dockerfile, gateway, err := frontends(workers, w.emulation)
	if err != nil {
		return nil, err
	}
	remote := newCaches(w, sessions)
	return control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: workers,
		Frontends:        map[string]frontend.Frontend{"dockerfile.v0": dockerfile, "gateway.v0": gateway},
		CacheManager:     solver.NewCacheManager(ctx, "local", links, worker.NewCacheResultStorage(workers)),
		CacheStore:       links,
		HistoryDB:        history,
		HistoryConfig:    &bkconfig.HistoryConfig{MaxEntries: new(int64)}, // none: nobody reads it, and each record costs syncs
		// What a build asks for is decided by its own user, who could do no less without.
		Entitlements:              []string{"network.host", "security.insecure", "device"},
		ResolveCacheExporterFuncs: remote.exporters,
		ResolveCacheImporterFuncs: remote.importers,

		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		GarbageCollect: w.GarbageCollect,
	})
}

// openBolt opens a database that is not synced on every transaction: state.go
// makes up for it.
func openBolt(path string) (db.DB, error) {
	return boltutil.Open(path, 0o600, boltOptions())
}

// Client returns BuildKit's client on this engine. Its sessions skip gRPC's
// tunnel and go straight to the session manager.
func (e *Engine) Client(ctx context.Context) (*client.Client, error) {
	return client.New(ctx, "passthrough:///wherry",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return e.pipe.DialContext(ctx)
		}),
		client.WithSessionDialer(e.dialSession))
}

func (e *Engine) dialSession(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
	for key, ids := range meta {
		if strings.EqualFold(key, "X-Docker-Expose-Session-Uuid") && len(ids) == 1 {
			e.worker.folders.sessions.Store(ids[0], nil)
		}
	}
	l := bufconn.Listen(pipeSize)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		// The session ends with its connection; a failure shows at the client's end of it.
		_ = e.sessions.HandleConn(context.WithoutCancel(ctx), conn, meta)
	}()
	return l.DialContext(ctx)
}

// Serve lets other processes join through l until the engine is closed. Whoever
// reaches l has all rights on the engine.
func (e *Engine) Serve(l net.Listener) {
	_ = e.server.Serve(l) // returns when Close stops the server
}

// Grown reports whether the build cache has got more since the engine was opened.
func (e *Engine) Grown() bool { return e.state.grown.Load() }

// Close ends the engine after all that is running has ended, and makes the state
// safe against a power failure.
func (e *Engine) Close(ctx context.Context) error {
	e.server.GracefulStop()
	var err error
	if e.Grown() {
		// A failed step's snapshot is only let go of; on a full disk its space is what the next build needs.
		err = e.worker.GarbageCollect(context.WithoutCancel(ctx))
	}
	err = errors.Join(err, e.controller.Close(), e.worker.snapshots.Close(), forgetHashes(context.WithoutCancel(ctx)))
	if err == nil {
		err = e.state.close()
	}
	return err
}

// mkdir makes the folders of the state, readable by nobody else.
func mkdir(parts ...string) (string, error) {
	dir := filepath.Join(parts...)
	return dir, os.MkdirAll(dir, 0o700)
}
