package layout

import (
	"os"

	"golang.org/x/sys/unix"
)

// cloneRange makes n bytes of dst from offset to on share the blocks of src from
// offset from on. All three must be multiples of the file system's block; which
// file systems can do it, and between which files, only trying tells
// (ioctl_ficlonerange(2)). Neither file's position moves.
func cloneRange(dst *os.File, to int64, src *os.File, from, n int64) error {
	r := unix.FileCloneRange{Src_fd: int64(src.Fd()), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(to)}
	return os.NewSyscallError("ficlonerange", unix.IoctlFileCloneRange(int(dst.Fd()), &r))
}

// copyInKernel copies up to n bytes between the files' positions, without a
// detour through this process. Any error means that less than n bytes were
// copied, and that the positions tell how much.
func copyInKernel(dst, src *os.File, n int64) (copied int64, err error) {
	for copied < n {
		c, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, int(n-copied), 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return copied, os.NewSyscallError("copy_file_range", err)
		case c == 0:
			return copied, nil
		default:
			copied += int64(c)
		}
	}
	return copied, nil
}

// readAhead has the kernel begin to read what will be asked for next; the disk of
// a cloned file is read at once, and the window of its own choice is small. It is
// only a hint.
func readAhead(f *os.File, offset, n int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, n, unix.FADV_WILLNEED)
}
