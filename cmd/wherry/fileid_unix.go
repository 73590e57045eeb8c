//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// identify tells one file from another, and how many names it has.
func identify(fi fs.FileInfo) (id fileID, links uint64) {
	stat, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, 1
	}
	//nolint:unconvert // the fields are narrower on some systems
	return fileID{device: uint64(stat.Dev), inode: uint64(stat.Ino)}, uint64(stat.Nlink)
}

// allocated is what the file takes on the disk.
func allocated(fi fs.FileInfo) int64 {
	if stat, ok := fi.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512 // whatever the file system's block size: stat(2)
	}
	return fi.Size()
}
