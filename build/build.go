// Package build turns a Dockerfile into an image, with BuildKit's solver in this
// process and without a daemon.
//
// A [Request] says what to build; [Build] runs it on the engine of a state folder:
// its own, or that of another process of the same user that is building already,
// so that builds run side by side and share one cache. The result of an image
// build is named in the image store that the caller hands in.
//
// [Enter] and [Init] bring the process into the namespaces that a build needs.
// Package engine assembles BuildKit, package executor runs the steps. This
// package reads no flags and no environment, and prints only to the writers of
// the request. Building needs Linux.
package build

import (
	"io"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Request is one build. The zero value of every field but Context is a default.
type Request struct {
	Context    string // folder that COPY and ADD read from
	Dockerfile string // path; "": Dockerfile in Context

	Names     []reference.Named // what the result is called in the store
	BuildArgs map[string]string // ARG values
	Labels    map[string]string // image labels
	Target    string            // stage to build; "": the last
	Platforms []v1.Platform     // none: this machine's. Several: an index over them
	NoCache   bool              // run every step anew
	Pull      bool              // ask the registry for every FROM, though the store has it
	Secrets   []Secret          // for RUN --mount=type=secret
	Outputs   []Output          // none: the image store

	Keychain authn.Keychain       // credentials for FROM; nil: anonymous
	Hosts    docker.RegistryHosts // how registries are reached; nil: each by its own name
	Runtime  string               // path of a runc-like binary for RUN; "": wherry's own executor

	Progress Progress
	Stdout   io.Writer    // for outputs to "-"
	Notice   func(string) // told why a build has to wait, or starts anew; may be nil
}

// Secret is a value that a step may read while it runs. It never becomes part of an
// image or of the build cache.
type Secret struct {
	ID   string
	File string // path of the file that holds it; or
	Env  string // name of the environment variable that holds it
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
}
