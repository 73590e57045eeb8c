//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"syscall"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/git"
	httpsource "github.com/moby/buildkit/source/http"
)

// remoteSource is BuildKit's source of a URL or a git repository; what fails there comes
// back as a [*SourceError], without BuildKit's internal steps around it.
type remoteSource struct{ source.Source }

func (s remoteSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, vtx solver.Vertex) (source.SourceInstance, error) {
	at := publicURL(id)
	inst, err := s.Source.Resolve(ctx, id, sm, vtx)
	return remoteInstance{inst, at}, asSourceError(at, err)
}

type remoteInstance struct {
	source.SourceInstance
	url string
}

func (i remoteInstance) CacheKey(ctx context.Context, jc solver.JobContext, index int) (key, pin string, opts solver.CacheOpts, done bool, err error) {
	key, pin, opts, done, err = i.SourceInstance.CacheKey(ctx, jc, index)
	return key, pin, opts, done, asSourceError(i.url, err)
}

func (i remoteInstance) Snapshot(ctx context.Context, jc solver.JobContext) (cache.ImmutableRef, error) {
	ref, err := i.SourceInstance.Snapshot(ctx, jc)
	return ref, asSourceError(i.url, err)
}

// asSourceError says from where something could not be had, unless it was cancelled.
func asSourceError(at string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return &SourceError{URL: at, Reason: networkReason(err), cause: err}
}

// answered refuses what is no answer to a GET: BuildKit takes the page that says so for
// the file, where it knows a checksum.
type answered struct{ base http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t answered) RoundTrip(req *http.Request) (*http.Response, error) {
	base := t.base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(req)
	if err == nil && req.Method == http.MethodGet && resp.StatusCode >= http.StatusBadRequest {
		return nil, errors.Join(fmt.Errorf("the server answers %s", resp.Status), resp.Body.Close())
	}
	return resp, err
}

// publicURL is where a source is, without what may be a secret.
func publicURL(id source.Identifier) string {
	at := ""
	switch id := id.(type) {
	case *httpsource.HTTPIdentifier:
		at = id.URL
	case *git.GitIdentifier:
		at = id.Remote
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return WithoutCredentials(at) // git has other forms as well
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// networkReason is the kernel's word for what went wrong below net/http; else the whole
// text in one line, without the credentials that git repeats.
func networkReason(err error) string {
	var errno syscall.Errno
	var dns *net.DNSError
	var at *url.Error
	switch {
	case errors.As(err, &dns):
		return "no such host"
	case errors.As(err, &at) && errors.As(at.Err, &errno):
		return errno.Error()
	case errors.As(err, &at) && at.Timeout():
		return "no answer in time"
	case errors.As(err, &at):
		return at.Err.Error()
	}
	if _, ran := errors.AsType[*exec.ExitError](err); ran {
		return gitReason(err)
	}
	return WithoutCredentials(strings.Join(strings.Fields(err.Error()), " "))
}

// gitReason is what git printed: the innermost text that BuildKit has put around the exit
// status, "git stderr:" being a line of its own.
func gitReason(err error) string {
	said := err.Error()
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if _, exit := inner.(*exec.ExitError); exit { //nolint:errorlint // the text of the one around it is wanted
			said = strings.TrimSuffix(said, ": "+inner.Error())
			break
		}
		said = inner.Error()
	}
	_, said, _ = strings.Cut(said, "\n")
	if said = strings.TrimSpace(said); said == "" {
		said = err.Error()
	}
	return WithoutCredentials(strings.Join(strings.Fields(said), " "))
}

// gitSource is BuildKit's source of git repositories. It unshares the umask of a thread from
// the others' to set it to what git expects, and that is made to work first.
type gitSource struct {
	remoteSource
	files *storage
}

func (s gitSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, vtx solver.Vertex) (source.SourceInstance, error) {
	if err := s.files.readyForGit(); err != nil {
		return nil, err
	}
	return s.remoteSource.Resolve(ctx, id, sm, vtx)
}

// noGit stands for repositories where git is not installed.
type noGit struct{}

func (noGit) Schemes() []string { return []string{"git"} }

func (noGit) Identifier(string, string, map[string]string, *pb.Platform) (source.Identifier, error) {
	return nil, &FileError{Reason: "git is not installed"}
}

func (noGit) Resolve(context.Context, source.Identifier, *session.Manager, solver.Vertex) (source.SourceInstance, error) {
	return nil, &FileError{Reason: "git is not installed"}
}
