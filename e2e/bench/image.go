package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeImage adds an image to a layout: its layers are gzip files of a tar with
// one file of random bytes. Nothing of it is held in memory.
func writeImage(dir, tag string, megabytes []int64) error {
	var layers []v1.Descriptor
	var diffs []v1.Hash
	for i, mb := range megabytes {
		layer, diff, err := writeLayer(dir, uint64(i), mb*1_000_000) //nolint:gosec // a small number
		if err != nil {
			return err
		}
		layers, diffs = append(layers, layer), append(diffs, diff)
	}
	return writeManifest(dir, tag, layers, diffs)
}

// writeHoleImage adds one with a single layer of zeros, which take no space.
func writeHoleImage(dir, tag string, size int64) error {
	hash := sha256.New()
	if _, err := io.CopyN(hash, zeros{}, size); err != nil {
		return err
	}
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: size, Digest: hashOf(hash.Sum(nil))}
	f, err := os.Create(blobFile(dir, d.Digest))
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	return writeManifest(dir, tag, []v1.Descriptor{d}, []v1.Hash{d.Digest})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func writeLayer(dir string, seed uint64, size int64) (layer v1.Descriptor, diff v1.Hash, err error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return layer, diff, err
	}
	f, err := os.CreateTemp(dir, "layer")
	if err != nil {
		return layer, diff, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed, plain := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, packed), gzip.NoCompression)
	if err != nil {
		return layer, diff, err
	}
	t := tar.NewWriter(io.MultiWriter(z, plain))
	err = t.WriteHeader(&tar.Header{Name: fmt.Sprintf("data-%d", seed), Size: size, Mode: 0o644, ModTime: time.Unix(1750000000, 0)})
	if err == nil {
		_, err = io.CopyN(t, rand.NewChaCha8([32]byte{byte(seed)}), size)
	}
	if err = errors.Join(err, t.Close(), z.Close()); err != nil {
		return layer, diff, err
	}
	info, err := f.Stat()
	if err != nil {
		return layer, diff, err
	}
	layer = v1.Descriptor{MediaType: types.OCILayer, Size: info.Size(), Digest: hashOf(packed.Sum(nil))}
	return layer, hashOf(plain.Sum(nil)), os.Rename(f.Name(), blobFile(dir, layer.Digest))
}

// writeManifest adds config and manifest, and an entry to index.json.
func writeManifest(dir, tag string, layers []v1.Descriptor, diffs []v1.Hash) error {
	config, err := writeJSON(dir, types.OCIConfigJSON, v1.ConfigFile{
		OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers", DiffIDs: diffs},
	})
	if err != nil {
		return err
	}
	manifest, err := writeJSON(dir, types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: layers,
	})
	if err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if raw, err := os.ReadFile(filepath.Join(dir, "index.json")); err == nil {
		if err := json.Unmarshal(raw, &index); err != nil {
			return err
		}
	}
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	index.Manifests = append(index.Manifests, manifest)
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "index.json"), raw, 0o600),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600),
	)
}

func writeJSON(dir string, t types.MediaType, what any) (v1.Descriptor, error) {
	raw, err := json.Marshal(what)
	if err != nil {
		return v1.Descriptor{}, err
	}
	sum := sha256.Sum256(raw)
	d := v1.Descriptor{MediaType: t, Size: int64(len(raw)), Digest: hashOf(sum[:])}
	return d, os.WriteFile(blobFile(dir, d.Digest), raw, 0o600)
}

func hashOf(sum []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum)} }

func blobFile(dir string, h v1.Hash) string { return filepath.Join(dir, "blobs", h.Algorithm, h.Hex) }
