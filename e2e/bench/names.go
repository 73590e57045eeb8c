package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/e2e/base"
)

// manyNames is how many entries a large store has.
const manyNames = 5000

// names times the commands that work on names, in a store that has 5,000 of them: of
// as many images, and of ten.
func (b *bench) names(ctx context.Context) error {
	for _, images := range []int{manyNames, 10} {
		s := crowd{bench: b, dir: filepath.Join(b.dir, fmt.Sprintf("names-%d", images)), images: images}
		if err := s.fill(ctx); err != nil {
			return err
		}
		if err := s.measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// crowd is a store of 5,000 names.
type crowd struct {
	*bench
	dir    string
	images int // what they stand for
}

// name is that of entry i. The registry has the first one.
func (s *crowd) name(i int) string { return fmt.Sprintf("%s/team/app-%d:latest", s.registry.Addr(), i) }

// fill has wherry make the store and its first entry, after whose pattern come the others.
func (s *crowd) fill(ctx context.Context) error {
	first, err := smallImage(0)
	if err != nil {
		return err
	}
	if err := s.registry.Put("team/app-0:latest", first); err != nil {
		return err
	}
	if err := s.pull(ctx, s.dir, "team/app-0:latest"); err != nil {
		return err
	}
	file := filepath.Join(s.dir, "index.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return err
	}
	pattern := index.Manifests[0]
	index.Manifests = nil
	entries := make([]v1.Descriptor, s.images)
	for i := range entries {
		if entries[i], err = s.write(i, pattern); err != nil {
			return err
		}
	}
	for i := range manyNames {
		entry := *entries[i%s.images].DeepCopy()
		entry.Annotations["org.opencontainers.image.ref.name"] = s.name(i)
		entry.Annotations["io.containerd.image.name"] = s.name(i)
		index.Manifests = append(index.Manifests, entry)
	}
	index.MediaType = types.OCIImageIndex
	if raw, err = json.Marshal(index); err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o600)
}

func smallImage(i int) (v1.Image, error) {
	return base.Random(int64(i), 1, 1000, base.Platforms()[0])
}

// write puts the blobs of image i into the store and returns its entry.
func (s *crowd) write(i int, pattern v1.Descriptor) (v1.Descriptor, error) {
	img, err := smallImage(i)
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, layer := range layers {
		if err := s.writeLayer(layer); err != nil {
			return v1.Descriptor{}, err
		}
	}
	name, configErr := img.ConfigName()
	digest, err := img.Digest()
	parsed, parseErr := img.ConfigFile()
	if err := errors.Join(err, configErr, parseErr); err != nil {
		return v1.Descriptor{}, err
	}
	entry := *pattern.DeepCopy()
	entry.Digest, entry.Size = digest, int64(len(manifest))
	entry.Annotations["org.opencontainers.image.created"] = parsed.Created.UTC().Format(time.RFC3339Nano)
	return entry, errors.Join(
		os.WriteFile(blobFile(s.dir, name), config, 0o600), os.WriteFile(blobFile(s.dir, digest), manifest, 0o600),
	)
}

func (s *crowd) writeLayer(layer v1.Layer) error {
	digest, err := layer.Digest()
	if err != nil {
		return err
	}
	r, err := layer.Compressed()
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(r)
	return errors.Join(err, r.Close(), os.WriteFile(blobFile(s.dir, digest), raw, 0o600))
}

// wherryAt is the command line for this store.
func (s *crowd) wherryAt(args ...string) []string {
	return append([]string{s.wherry, "--store", s.dir}, args...)
}

// before runs a command in front of each measurement, and doesn't time it.
func (s *crowd) before(ctx context.Context, args ...string) func() error {
	line := s.wherryAt(args...)
	return func() error {
		out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%q: %w\n%s", line, err, out)
		}
		return nil
	}
}

// title is what a command line does, without what is this run's own.
func (s *crowd) title(args []string) string {
	plain := strings.NewReplacer(s.name(0), "ONE", s.name(manyNames/2), "ANOTHER", s.archive(), "FILE")
	return plain.Replace(strings.Join(args[3:], " "))
}

func (s *crowd) archive() string { return s.dir + ".tar" }

func (s *crowd) measure(ctx context.Context) error {
	for _, c := range append(s.lists(), s.changes(ctx)...) {
		c.name = s.title(c.args)
		if err := s.compare(ctx, fmt.Sprintf("5,000 names of %d images", s.images), c); err != nil {
			return err
		}
	}
	return nil
}

// lists are the commands that only read.
func (s *crowd) lists() []contender {
	another := s.name(manyNames / 2)
	return []contender{
		{args: s.wherryAt("images")},
		{args: s.wherryAt("images", "-q")},
		{args: s.wherryAt("images", "--tree")},
		{args: s.wherryAt("images", "--format", "json")},
		{args: s.wherryAt("images", another)},
		{args: s.wherryAt("images", "-f", "dangling=true")},
		{args: s.wherryAt("images", "-f", "label=none")},
		{args: s.wherryAt("images", "-f", "before="+another)},
		{args: s.wherryAt("images", "-f", "since="+another)},
		{args: s.wherryAt("images", "-f", "until=1h")},
		{args: s.wherryAt("images", "-f", "reference=*/team/*1")},
		{args: s.wherryAt("inspect", another)},
		{args: s.wherryAt("history", another)},
		{args: s.wherryAt("system", "df")},
		{args: s.wherryAt("system", "df", "-v")},
	}
}

// changes are those that bring a name, or take one away.
func (s *crowd) changes(ctx context.Context) []contender {
	one, another := s.name(0), s.name(manyNames/2)
	there := s.before(ctx, "load", "-i", s.archive())
	return []contender{
		{args: s.wherryAt("tag", another, "new"), ready: s.before(ctx, "rmi", "-f", "new")},
		{args: s.wherryAt("rmi", "new"), ready: s.before(ctx, "tag", another, "new")},
		{args: s.wherryAt("save", "-o", s.archive(), one)},
		{args: s.wherryAt("load", "-i", s.archive()), ready: s.before(ctx, "rmi", "-f", one)},
		{args: s.wherryAt("rmi", one), ready: there},
		{args: s.wherryAt("pull", one), ready: there},
		{args: s.wherryAt("push", one)},
		{args: s.wherryAt("image", "prune", "-f")},
	}
}
