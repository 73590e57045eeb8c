package layout

import (
	"bytes"
	"errors"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobName is the digest that a path below blobs promises.
func blobName(name string) (v1.Hash, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != blobsDir {
		return v1.Hash{}, false
	}
	h, err := v1.NewHash(parts[1] + ":" + parts[2])
	return h, err == nil
}

// read takes one file in, and checks it against the digest in its name.
func (a *archive) read(name string, size int64, content io.Reader) (*item, error) {
	want, isBlob := blobName(name)
	if !isBlob {
		want.Algorithm = "sha256"
	}
	head, err := readAtMost(content, min(size, tarBlockSize))
	if err != nil {
		return nil, archiveError(err)
	}
	i := &item{size: size, packing: sniff(head)}
	content = io.MultiReader(bytes.NewReader(head), content)
	known := isBlob && a.store.has(v1.Descriptor{Digest: want, Size: size})
	switch {
	case len(head) > 0 && (head[0] == '{' || head[0] == '[') && size <= maxConfig:
		err = a.keep(i, want.Algorithm, content)
	case known:
		err = a.skip(i, want, content)
	default:
		err = a.spool(i, want, content)
	}
	if err == nil && isBlob && i.digest != want {
		err = &DigestError{Digest: want, Size: size, Got: i.digest, Bytes: size}
	}
	return i, err
}

// keep reads JSON into memory.
func (a *archive) keep(i *item, algorithm string, content io.Reader) error {
	if a.kept += i.size; a.kept > maxArchived {
		return invalid("archive", "more than %d bytes of manifests and configs in it", maxArchived)
	}
	raw, err := readAtMost(content, i.size)
	if err != nil {
		return archiveError(err)
	}
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return err
	}
	h.Write(raw)
	i.raw, i.digest = raw, sum(algorithm, h)
	return nil
}

// skip only hashes what the store has: an archive that lies is refused anyway.
func (a *archive) skip(i *item, want v1.Hash, content io.Reader) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(h, content, make([]byte, bufferSize)); err != nil {
		return archiveError(err)
	}
	i.digest = sum(want.Algorithm, h)
	report(a.progress, i.descriptor(), i.size)
	return nil
}

// spool writes content into the ingest folder.
func (a *archive) spool(i *item, want v1.Hash, content io.Reader) error {
	g, err := a.store.newIngest(want.Algorithm)
	if err != nil {
		return err
	}
	i.temp = g.file.Name()
	a.temps = append(a.temps, i.temp)
	if want.Hex != "" {
		report(a.progress, v1.Descriptor{Digest: want, Size: i.size}, 0)
	}
	buf := make([]byte, min(bufferSize, i.size+1))
	for g.n < i.size {
		n, err := content.Read(buf)
		if _, err := g.Write(buf[:n]); err != nil {
			return errors.Join(err, g.file.Close())
		}
		if want.Hex != "" && g.n < i.size {
			report(a.progress, v1.Descriptor{Digest: want, Size: i.size}, g.n)
		}
		if err != nil && g.n < i.size {
			return errors.Join(archiveError(err), g.file.Close())
		}
	}
	i.digest = sum(want.Algorithm, g.hash)
	a.settling.Go(func() error {
		err := g.settle()
		if want.Hex == "" { // only now its digest is known
			report(a.progress, i.descriptor(), 0)
		}
		report(a.progress, i.descriptor(), i.size)
		return err
	})
	return nil
}
