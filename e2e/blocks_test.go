package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// makers make file systems that share blocks, and the smallest they make.
var makers = map[string]struct {
	args []string
	size int64
}{
	"xfs":   {[]string{"mkfs.xfs", "-q", "-m", "reflink=1"}, 320 << 20},
	"btrfs": {[]string{"mkfs.btrfs", "-q"}, 160 << 20},
}

// mountLoop makes a file system in a file and mounts it at dir.
func mountLoop(ctx context.Context, kind, file, dir string) error {
	maker := makers[kind]
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(file, maker.size); err != nil {
		return err
	}
	if err := command(ctx, maker.args[0], append(maker.args[1:], file)...); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return command(ctx, "mount", "-t", kind, "-o", "loop", file, dir)
}

// canLoop says whether such a file system can be had; found by trying, once.
var canLoop = sync.OnceValue(func() map[string]bool {
	can := map[string]bool{}
	for kind := range makers {
		dir, err := os.MkdirTemp("", "wherry-loop-")
		if err != nil {
			continue
		}
		mounted := filepath.Join(dir, "mounted")
		if err = mountLoop(context.Background(), kind, filepath.Join(dir, "disk"), mounted); err == nil {
			err = unix.Unmount(mounted, 0)
		}
		can[kind] = errors.Join(err, os.RemoveAll(dir)) == nil
	}
	return can
})

// cmdLoop: loop FOLDER xfs|btrfs mounts a file system that shares blocks there until the story ends.
func cmdLoop(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(mountLoop(context.Background(), args[1], dir+".disk", dir))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	ts.Check(os.Chmod(dir, 0o777|os.ModeSticky))
}

// cmdShares: [!] shares FILE|FOLDER requires that most of a file's blocks, or of the largest file's in a folder, are
// another file's too.
func cmdShares(ts *testscript.TestScript, neg bool, args []string) {
	file, size := largest(ts, ts.MkAbs(args[0]))
	out, err := exec.CommandContext(context.Background(), "filefrag", "-s", "-v", "-b1024", file).CombinedOutput()
	if err != nil {
		ts.Fatalf("filefrag: %v\n%s", err, out)
	}
	shared := int64(0)
	for line := range strings.Lines(string(out)) {
		columns := strings.Split(line, ":") // extent: logical..: physical..: length: expected: flags
		if !strings.Contains(line, "shared") || len(columns) < 4 {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(columns[3]), 10, 64)
		ts.Check(err)
		shared += n << 10
	}
	if share := fmt.Sprintf("%d of %d bytes of %s", shared, size, file); (shared > size*9/10) == neg {
		ts.Fatalf("shared: %s\n%s", share, out)
	}
}

func largest(ts *testscript.TestScript, path string) (file string, size int64) {
	ts.Check(filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() > size {
			file, size = path, info.Size()
		}
		return err
	}))
	return file, size
}
