//go:build !unix

package main

import "io/fs"

// identify takes every file for another one: this system builds nothing, so the
// store shares its blobs with nobody.
func identify(fs.FileInfo) (id fileID, links uint64) { return fileID{}, 1 }

// allocated is what the file takes on the disk, rounding aside.
func allocated(fi fs.FileInfo) int64 { return fi.Size() }
