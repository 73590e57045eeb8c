//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// timedMemory remembers, in a label of the blob that a layer was made from, which layer
// came of it with its times set: a build that is cached compresses nothing. That layer
// is in the engine's content, or in the image store.
type timedMemory struct {
	store     content.Store
	of        digest.Digest
	key       string // of the label
	mediaType string
}

// keep writes the label.
func (m timedMemory) keep(ctx context.Context, d ocispecs.Descriptor) error {
	if len(d.Annotations) > 1 {
		return nil // a format that has more to remember
	}
	value := fmt.Sprintf("%s %d %s", d.Digest, d.Size, d.Annotations[labels.LabelUncompressed])
	_, err := m.store.Update(ctx, content.Info{Digest: m.of, Labels: map[string]string{m.key: value}}, "labels."+m.key)
	if errdefs.IsNotFound(err) {
		return nil // the blob is still in a registry alone
	}
	return err
}

// recall finds the layer again, and takes it into the caller's lease.
func (m timedMemory) recall(ctx context.Context) (ocispecs.Descriptor, bool, error) {
	d := ocispecs.Descriptor{MediaType: m.mediaType}
	info, err := m.store.Info(ctx, m.of)
	if err != nil {
		return d, false, nil //nolint:nilerr // nothing is remembered of a blob that is not here
	}
	var diffID string
	if _, err := fmt.Sscanf(info.Labels[m.key], "%s %d %s", &d.Digest, &d.Size, &diffID); err != nil {
		return d, false, nil //nolint:nilerr // no label
	}
	d.Annotations = map[string]string{labels.LabelUncompressed: diffID}
	found, err := m.lease(ctx, d)
	return d, found, err
}

// lease says whether d is there; if so it stays as long as the caller's lease.
func (m timedMemory) lease(ctx context.Context, d ocispecs.Descriptor) (found bool, err error) {
	ref := m.key + "." + d.Digest.String()
	w, err := content.OpenWriter(ctx, m.store, content.WithRef(ref), content.WithDescriptor(d))
	if errdefs.IsAlreadyExists(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if status, err := w.Status(); err != nil || status.Offset != d.Size {
		return false, errors.Join(err, m.store.Abort(ctx, ref)) // to be written anew
	}
	err = w.Commit(ctx, d.Size, d.Digest, content.WithLabels(map[string]string{labels.LabelUncompressed: d.Annotations[labels.LabelUncompressed]}))
	if errdefs.IsAlreadyExists(err) {
		err = nil
	}
	return err == nil, err
}
