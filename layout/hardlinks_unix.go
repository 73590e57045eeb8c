//go:build unix

package layout

import (
	"io/fs"
	"syscall"
)

// hardLinks is how many names a file has.
func hardLinks(fi fs.FileInfo) uint64 {
	if stat, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink) //nolint:unconvert // it is narrower on some systems
	}
	return 1
}
