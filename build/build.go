// Package build turns a Dockerfile into an image, with BuildKit's solver in this
// process and without a daemon.
//
// A [Request] says what to build; [Build] runs it on the engine of a state folder:
// its own, or that of another process of the same user that is building already,
// so that builds run side by side and share one cache. [Several] runs requests side by
// side that may use each other's results; package bake reads files that define them.
// The result of an image build is named in the image store that the caller hands in.
//
// [Enter] and [Init] bring the process into the namespaces that a build needs.
// Package engine assembles BuildKit, package executor runs the steps. This
// package reads no flags and no environment, and prints only to the writers of
// the request. Building needs Linux.
package build

import (
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DefaultScanner is the image that lists what is in a result, for an SBOM that names no
// other one with "generator=". It is BuildKit's choice, and so docker's.
const DefaultScanner = "docker/buildkit-syft-scanner:stable-1"

// IsURL tells a URL from the name of a file or folder, as docker does.
func IsURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// Request is one build. The zero value of every field but Context is a default.
type Request struct {
	// Context is what COPY and ADD read from: a folder; "-", which is Stdin, a tar
	// archive (gzip, zstd, xz or bzip2 may be around it) or a Dockerfile alone; a git
	// repository, as "https://host/repo.git#ref:folder" or "git@host:repo.git"; or the
	// URL of an archive or a Dockerfile.
	Context string
	// Dockerfile is a path, "-" for Stdin, or a URL. In a context that is no folder a
	// relative path is one inside of it. "" is Dockerfile in Context.
	Dockerfile string
	Stdin      io.Reader
	// Contexts are those that COPY --from and FROM know by a name: folders, git
	// repositories, URLs, "docker-image://NAME", "oci-layout://FOLDER[:TAG|@DIGEST]".
	Contexts map[string]string

	Names       []reference.Named // what the result is called in the store
	BuildArgs   map[string]string // ARG values
	Labels      map[string]string // image labels
	Annotations []Annotation
	Target      string        // stage to build; "": the last
	Platforms   []v1.Platform // none: this machine's. Several: an index over them
	NoCache     bool          // run every step anew
	NoCacheOf   []string      // run the steps of these stages anew
	Pull        bool          // ask the registry for every FROM, though the store has it
	Secrets     []Secret      // for RUN --mount=type=secret
	SSH         []SSH         // for RUN --mount=type=ssh, and git over ssh
	SSHAgent    string        // socket of the user's agent; a context that git gets over ssh needs no SSH then
	Steps       Steps
	Allow       []string          // what steps may ask for: "network.host", "security.insecure", "device"
	Attest      map[string]string // attestations: "provenance" or "sbom", and their attributes as CSV
	CacheFrom   []Cache
	CacheTo     []Cache
	// Reproducible leaves out of the result what differs from one machine, user or moment
	// to another: files and history have the time that the build argument
	// SOURCE_DATE_EPOCH says, else that of the last commit of a context in git, else 0.
	Reproducible bool
	CacheSize    int64    // bytes that the build cache may have; 0: as much as leaves a tenth of the disk, at most 20 GB, free
	Outputs      []Output // none: the image store

	// On a farm: Push has the result go to registries under its names, and Keep into the
	// image store all the same.
	Push, Keep bool

	Keychain authn.Keychain       // credentials for FROM; nil: anonymous
	Hosts    docker.RegistryHosts // how registries are reached; nil: each by its own name
	// Client gets what has a URL: the Dockerfile and, by its Transport, contexts and what ADD
	// names. nil is http.DefaultClient, which waits for a server that sends nothing.
	Client  *http.Client
	Runtime string // path of a runc-like binary for RUN; "": wherry's own executor
	// Confine says what security modules take steps for.
	Confine Confine
	// EmulatorDir is a folder in which emulators for steps of other platforms are looked for before PATH, as
	// [platform.FindEmulator] does. It is absolute; "": only PATH.
	EmulatorDir string

	Progress Progress
	// Report, if not nil, is called with what has happened in a build when it has ended or
	// failed; again, if it had to start anew because another process ran the engine and ended.
	Report func(*Report)
	Stdout io.Writer    // for outputs to "-"
	Notice func(string) // told why a build has to wait, or starts anew; may be nil
}

// Steps is the surroundings of every RUN.
type Steps struct {
	Network      string            // "host", "none"; "": what the step says, else the host's
	Hosts        []string          // lines for /etc/hosts: "NAME=IP"
	ShmSize      int64             // bytes of /dev/shm; 0: 64 MiB
	Ulimits      []string          // "nofile=1024:2048", as setrlimit(2) has them
	CgroupParent string            // cgroup to run the steps under
	Resources    map[string]string // limits by BuildKit's names: memory, memswap, cpushares, cpuperiod, cpuquota, cpusetcpus, cpusetmems
}

// Cache is a place of a build cache outside of the state folder, in BuildKit's words.
type Cache struct {
	Type  string // "registry", "local", "inline" (only to), or one of a cloud's
	Attrs map[string]string
}

// Secret is a value that a step may read while it runs. It never becomes part of an
// image or of the build cache.
type Secret struct {
	ID   string
	File string // path of the file that holds it; or
	Env  string // name of the environment variable that holds it
}

// SSH is an agent, or private keys that act as one, that a step may use while it runs.
type SSH struct {
	ID    string   // "": "default"
	Paths []string // a socket, or key files; none: the request's SSHAgent
}

// Progress says how a build is shown.
type Progress struct {
	// Mode is BuildKit's: "auto" (a display on a terminal, else plain lines), "tty",
	// "plain", "rawjson", "quiet" or "none"; "" is "auto".
	Mode string
	Out  io.Writer // "tty" needs an *os.File on a terminal
}

// Result is what came of a build.
type Result struct {
	// Digest of the image manifest, or of the index for several platforms. The zero
	// value when no image was made (outputs local, tar and cacheonly).
	Digest v1.Hash
	Names  []reference.Named
	// Metadata is what BuildKit's exporters and frontend tell of the result, by their
	// keys: "containerimage.digest", "image.name" and others. Values are text, or JSON in
	// base64.
	Metadata map[string]string
}
