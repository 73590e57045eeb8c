package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// The files of the reference build's context: 270 MB.
const (
	treeFiles   = 15_000
	treeBytes   = 270_000_000
	filesPerDir = 100
)

// writeReference makes the context: a Dockerfile, and a tree of files of words, every
// fifth of random bytes. They are the same each time.
func writeReference(dir string) error {
	t := newTree()
	for i := range treeFiles {
		folder := filepath.Join(dir, "tree", fmt.Sprintf("d%d", i/filesPerDir))
		if i%filesPerDir == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%d.txt", i)), t.file(i), 0o644); err != nil { //nolint:gosec // others read it in the image
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(referenceDockerfile), 0o644) //nolint:gosec // as above
}

// tree makes the contents of files.
type tree struct {
	source *rand.ChaCha8
	random *rand.Rand
	words  [][]byte
}

func newTree() *tree {
	t := &tree{source: rand.NewChaCha8([32]byte{1})}
	t.random = rand.New(t.source) //nolint:gosec // contents, not secrets
	for range 3000 {
		word := make([]byte, 3+t.random.IntN(7))
		for i := range word {
			word[i] = byte('a' + t.random.IntN(26))
		}
		t.words = append(t.words, append(word, ' '))
	}
	return t
}

// file is the content of file i, of half to one and a half times the mean size.
func (t *tree) file(i int) []byte {
	const mean = treeBytes / treeFiles
	size := mean/2 + t.random.IntN(mean)
	if i%5 == 0 {
		data := make([]byte, size)
		_, _ = t.source.Read(data) // never fails
		return data
	}
	var data []byte
	for len(data) < size {
		data = append(data, t.words[t.random.IntN(len(t.words))]...)
	}
	return data[:size]
}
