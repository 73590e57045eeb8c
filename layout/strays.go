package layout

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// strays are the blobs that no image needs, all to be hashed: one that is damaged
// would be taken for whole by whoever wants it next. It notes what else lies in
// the folder.
func (c *checker) strays() []blobFile {
	files, err := c.store.blobFiles()
	if err != nil {
		c.note(Unreadable, blobsDir, 0, err)
	}
	var extra []blobFile
	for _, f := range files {
		if c.survey.needs[f.hash] != nil {
			continue
		}
		extra = append(extra, f)
		if c.idle[f.hash] && !c.survey.reached[f.hash] {
			c.report.Problems = append(c.report.Problems, Problem{
				Kind: Garbage, Part: "blob", Digest: f.hash, Size: f.size, Path: blobPath(f.hash),
			})
		}
	}
	if c.quiet {
		c.leftovers()
	}
	c.foreign()
	return extra
}

func (c *checker) note(kind ProblemKind, path string, size int64, err error) {
	c.report.Problems = append(c.report.Problems, Problem{Kind: kind, Part: "file", Path: path, Size: size, Err: err})
}

// leftovers are the files of transfers that broke off.
func (c *checker) leftovers() {
	files, err := os.ReadDir(c.store.path(ingestDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.note(Unreadable, ingestDir, 0, err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".lock") {
			continue
		}
		if fi, err := f.Info(); err == nil {
			c.note(Leftover, path.Join(ingestDir, f.Name()), fi.Size(), nil)
		}
	}
}

// foreign are the files that are no part of an image layout. What is hidden is
// ours, or somebody's who knows what he does.
func (c *checker) foreign() {
	for _, e := range c.list(".") {
		switch name := e.Name(); name {
		case layoutFile, indexFile, "lost+found":
		case blobsDir:
			c.foreignBlobs()
		default:
			if !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, brokenIndex) {
				c.foreignFile(name, e)
			}
		}
	}
}

func (c *checker) foreignBlobs() {
	for _, e := range c.list(blobsDir) {
		if name := e.Name(); name != "sha256" && name != "sha512" {
			c.foreignFile(path.Join(blobsDir, name), e)
		}
	}
	_ = c.store.eachBlobEntry(func(algorithm string, e fs.DirEntry) error { // what can't be listed was noted
		if _, err := v1.NewHash(algorithm + ":" + e.Name()); err != nil || e.IsDir() {
			c.foreignFile(path.Join(blobsDir, algorithm, e.Name()), e)
		}
		return nil
	})
}

func (c *checker) foreignFile(name string, e fs.DirEntry) {
	var size int64
	if fi, err := e.Info(); err == nil && !e.IsDir() {
		size = fi.Size()
	}
	c.note(Foreign, name, size, nil)
}

func (c *checker) list(dir string) []fs.DirEntry {
	entries, err := os.ReadDir(filepath.Join(c.store.dir, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.note(Unreadable, dir, 0, err)
	}
	return entries
}
