package layout

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// linkFrom takes blob d over from the file in which src keeps it, if it does:
// by a hard link, or else with shared blocks. Where neither can be had (another
// file system, somebody else's file, too many links) done is false.
func (s *Store) linkFrom(ctx context.Context, src Source, d v1.Descriptor, p Progress) (done bool, err error) {
	from, ok := src.(pather)
	if !ok || ctx.Err() != nil {
		return false, ctx.Err()
	}
	file, ok := from.Path(d)
	if !ok {
		return false, nil
	}
	if !isFile(file, d.Size) { // then it is read, and the reader says what is wrong
		return false, nil
	}
	tmp := filepath.Join(s.dir, ingestDir, "link-"+d.Digest.Algorithm+"-"+d.Digest.Hex) // ours: the blob is locked
	_ = os.Remove(tmp)
	if !shareFile(file, tmp) {
		return false, nil
	}
	err = syncFile(tmp)
	if err == nil {
		err = s.place(tmp, d.Digest) // a torn blob in the target's place is replaced
	}
	_ = os.Remove(tmp) // still there if it failed, or if both were links to one file
	if err != nil {
		return false, err
	}
	report(p, d, 0)
	report(p, d, d.Size)
	return true, nil
}

// shareFile makes to another name of from, or a file on the same blocks.
func shareFile(from, to string) bool {
	return os.Link(from, to) == nil || cloneFile(from, to) == nil
}

func cloneFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err = errors.Join(clone(dst, src), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// syncFile brings a file to the disk that somebody else wrote.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(syncData(f), f.Close())
}
