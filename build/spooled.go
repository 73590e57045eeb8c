//go:build linux

package build

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
)

// spool keeps an archive on standard input in a file: several nodes, or one after another,
// may want it.
func (s *sources) spool() (*spooled, error) {
	if s.archive == nil {
		return nil, nil //nolint:nilnil // nothing to keep
	}
	f, err := os.CreateTemp("", "wherry-context-")
	if err != nil {
		return nil, err
	}
	kept := &spooled{f, 0}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if kept.size, err = io.Copy(f, s.archive); err != nil {
		return nil, errors.Join(fmt.Errorf("build context \"-\": %w", err), f.Close())
	}
	return kept, nil
}

// spooled is an archive in a file without a name.
type spooled struct {
	file *os.File
	size int64
}

func (s *spooled) close() error {
	if s == nil {
		return nil
	}
	return s.file.Close()
}

// fresh are the sources for one more node.
func (s *sources) fresh(kept *spooled) *sources {
	own := *s
	if kept != nil {
		own.archive = io.NewSectionReader(kept.file, 0, kept.size)
	}
	return &own
}

// find reads the Dockerfile in an archive that is compressed by gzip or not at all.
func (s *spooled) find(name string) ([]byte, error) {
	if name == "" {
		name = "Dockerfile"
	}
	var in io.Reader = bufio.NewReader(io.NewSectionReader(s.file, 0, s.size))
	if plain, err := gzip.NewReader(in); err == nil {
		in = plain
	} else {
		in = io.NewSectionReader(s.file, 0, s.size)
	}
	for files := tar.NewReader(in); ; {
		h, err := files.Next()
		if err != nil {
			return nil, err
		}
		if path.Clean("/"+h.Name) == path.Clean("/"+name) {
			dockerfile := &sources{}
			err := dockerfile.readText(files, name)
			return dockerfile.text, err
		}
	}
}
