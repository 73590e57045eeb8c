package layout

import (
	"context"
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Labels are those of an image's config, or why they can't be read.
type Labels struct {
	Labels map[string]string // nil if there are none
	Err    error             // an fs.ErrNotExist if the store has no config of the image
}

// LabelsOf reads the labels of images, in their order: an index has those of
// [Image.Best]. Each digest is read once, on all processors. The error is ctx's.
func (s *Store) LabelsOf(ctx context.Context, images []*Image) ([]Labels, error) {
	slot := make(map[v1.Hash]int, len(images))
	var distinct []*Image
	for _, img := range images {
		if _, ok := slot[img.desc.Digest]; !ok {
			slot[img.desc.Digest] = len(distinct)
			distinct = append(distinct, img)
		}
	}
	read := make([]Labels, len(distinct))
	err := each(ctx, len(distinct), func(ctx context.Context, i int) error {
		read[i].Labels, read[i].Err = distinct[i].labels(ctx)
		return nil
	})
	all := make([]Labels, len(images))
	for i, img := range images {
		all[i] = read[slot[img.desc.Digest]]
	}
	return all, err
}

// labels decodes no more than it must: a list asks for those of thousands.
func (i *Image) labels(ctx context.Context) (map[string]string, error) {
	if i.IsIndex() {
		best, err := i.best(ctx)
		if err != nil {
			return nil, err
		}
		return best.labels(ctx)
	}
	doc, err := readDocument(ctx, i.store.read, i.desc)
	if err != nil {
		return nil, err
	}
	if doc.config == nil {
		return nil, nil
	}
	raw, err := i.store.read(ctx, *doc.config, maxConfig)
	if err != nil {
		return nil, err
	}
	var config struct {
		Config struct {
			Labels map[string]string
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, &InvalidError{What: "config " + doc.config.Digest.String(), Reason: "not an image config", Err: err}
	}
	return config.Config.Labels, nil
}
