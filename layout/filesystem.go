package layout

import (
	"errors"
	"os"
)

// SharesBlocks reports whether the file system of the folder dir lets files share blocks, so that a save, and what a
// build takes from the store, cost next to nothing (ioctl_ficlonerange(2)). It is found by trying. The error is one of
// writing to the folder.
func SharesBlocks(dir string) (shares bool, err error) {
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(dir, ".clone-*")
		if err != nil {
			return false, err
		}
		files[i] = f
		defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	}
	if _, err := files[0].Write(make([]byte, cloneAlign)); err != nil {
		return false, err
	}
	return cloneRange(files[1], 0, files[0], 0, cloneAlign) == nil, nil
}
