//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/resolver"
	"google.golang.org/protobuf/proto"

	"github.com/wherry-oci/wherry/platform"
)

// maxIndex bounds the image index that is read, in bytes.
const maxIndex = 4 << 20

// Reason is why a FROM could not be resolved.
type Reason string

// The reasons that a caller may want to tell apart.
const (
	NotFound    Reason = "not found"
	Denied      Reason = "denied"
	Unreachable Reason = "unreachable"
	NoPlatform  Reason = "no such platform"
	Failed      Reason = "failed"
)

// FromError says which image of a FROM could not be had, and why. It keeps its type
// across gRPC.
type FromError struct {
	Image    string // familiar name, as in the Dockerfile
	Platform string // os/arch[/variant]
	Host     string // of the registry that was asked
	Reason   Reason
	Detail   string   // the registry's or the network's words; may be empty
	InStore  []string // platforms of that image which the store does have
	cause    error
}

func (e *FromError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "image %q: ", e.Image)
	if len(e.InStore) > 0 {
		fmt.Fprintf(&b, "the store has it for %s, not for %s, and ", strings.Join(e.InStore, ", "), e.Platform)
	} else if e.Reason != NoPlatform && e.Reason != Failed {
		b.WriteString("not in the store, and ")
	}
	switch e.Reason {
	case NotFound:
		fmt.Fprintf(&b, "%s does not have it", e.Host)
	case Denied:
		fmt.Fprintf(&b, "%s denies access to it", e.Host)
	case Unreachable:
		fmt.Fprintf(&b, "%s is unreachable", e.Host)
	case NoPlatform:
		fmt.Fprintf(&b, "%s has no manifest for %s", e.Host, e.Platform)
	default:
		fmt.Fprintf(&b, "%s failed", e.Host)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

func (e *FromError) Unwrap() error { return e.cause }

// ToProto makes the error travel; grpcerrors puts it together again by WrapError.
func (e *FromError) ToProto() grpcerrors.TypedErrorProto {
	return &fromMessage{FromError: *e}
}

// fromMessage is sent as JSON, by its registered type; the proto.Message is only
// there for the type's sake.
type fromMessage struct {
	proto.Message `json:"-"`
	FromError
}

func (m *fromMessage) WrapError(err error) error {
	e := m.FromError
	e.cause = err
	return &e
}

// registerErrors lets typeurl know our types, once in a process.
var registerErrors = sync.OnceFunc(func() {
	typeurl.Register((*fromMessage)(nil), "github.com/wherry-oci/wherry", "build.FromError+json")
	registerFileError()
	registerStepErrors()
	registerNoStepsError()
})

// explain turns a failed resolution into a FromError.
func (w *layoutWorker) explain(ctx context.Context, err error, sm *session.Manager, g session.Group) error {
	want, ok := ctx.Value(wantedKey{}).(wanted)
	if !ok || ctx.Err() != nil {
		return err
	}
	e := &FromError{
		Image:    reference.FamiliarString(want.name),
		Platform: platforms.Format(want.platform),
		Host:     reference.Domain(want.name),
		cause:    err,
	}
	e.Reason, e.Detail = classify(err)
	if e.Reason == NotFound {
		if have, err := w.registryPlatforms(ctx, want.name, sm, g); err == nil {
			e.Reason, e.Detail = NoPlatform, "there is "+strings.Join(have, ", ")
		}
	}
	var none *platform.NoMatchError
	if _, err := w.store.Lookup(ctx, want.name, toV1(want.platform)); errors.As(err, &none) {
		for _, p := range none.Have {
			e.InStore = append(e.InStore, platform.Format(p))
		}
	}
	return e
}

func classify(err error) (Reason, string) {
	var errno syscall.Errno
	var op *net.OpError
	var dns *net.DNSError
	var status remoteserrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &dns):
		return Unreachable, "no such host"
	case errors.As(err, &op) && errors.As(err, &errno):
		return Unreachable, errno.Error()
	case errors.As(err, &op):
		return Unreachable, op.Err.Error()
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return Denied, ""
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return Denied, status.Status
	case errdefs.IsNotFound(err):
		return NotFound, ""
	}
	return Failed, err.Error()
}

// registryPlatforms asks the registry once more, since containerd's "not found" does
// not say whether the image is missing or only its platform.
func (w *layoutWorker) registryPlatforms(ctx context.Context, name reference.Named, sm *session.Manager, g session.Group) ([]string, error) {
	r := resolver.DefaultPool.GetResolver(w.RegistryHosts, name.String(), resolver.ScopeType{}, sm, g)
	_, root, err := r.Resolve(ctx, name.String())
	if err != nil {
		return nil, err
	}
	fetcher, err := r.Fetcher(ctx, name.String())
	if err != nil {
		return nil, err
	}
	body, err := fetcher.Fetch(ctx, root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read
	index, err := v1.ParseIndexManifest(io.LimitReader(body, maxIndex))
	if err != nil {
		return nil, err
	}
	var have []string
	for _, d := range index.Manifests {
		if d.Platform != nil && !platform.IsAttestation(d) {
			have = append(have, platform.Format(*d.Platform))
		}
	}
	if len(have) == 0 {
		return nil, errdefs.ErrNotFound
	}
	return have, nil
}
