package e2e

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/e2e/base"
)

func fields(text []byte) []string { return strings.Fields(string(text)) }

// cmdCapture: capture NAME [PREFIX] puts the last command's stdout, trimmed, into $NAME; with PREFIX what follows it in its line.
func cmdCapture(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile("stdout")
	if len(args) > 1 {
		_, after, ok := strings.Cut(text, args[1])
		if !ok {
			ts.Fatalf("no %q on stdout", args[1])
		}
		text, _, _ = strings.Cut(after, "\n")
	}
	ts.Setenv(args[0], strings.TrimSpace(text))
}

// canMount says whether we may mount a tmpfs; found by trying, once.
var canMount = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "wherry-mount-")
	if err != nil {
		return false
	}
	err = unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k")
	if err == nil {
		err = unix.Unmount(dir, 0)
	}
	return errors.Join(err, os.Remove(dir)) == nil
})

// cmdTmpfs: tmpfs FOLDER SIZE mounts a small file system there until the story ends.
func cmdTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=1777,size="+args[1]))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// cmdOverlay: overlay FOLDER SIZE mounts a small overlayfs there until the story ends: the file system that a container has, on which
// no other overlayfs can be written.
func cmdOverlay(ts *testscript.TestScript, _ bool, args []string) {
	dir, layers := ts.MkAbs(args[0]), ts.MkAbs(args[0])+".layers"
	cmdTmpfs(ts, false, []string{layers, args[1]})
	for _, name := range []string{dir, layers + "/lower", layers + "/upper", layers + "/work"} {
		ts.Check(os.MkdirAll(name, 0o755))
	}
	ts.Check(os.Chmod(layers+"/upper", 0o777|os.ModeSticky))
	ts.Check(unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+layers+"/lower,upperdir="+layers+"/upper,workdir="+layers+"/work"))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// cmdDamage: damage FILE half | flip cuts a file in two, or changes a byte in its middle.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	file := ts.MkAbs(args[0])
	data, err := os.ReadFile(file)
	ts.Check(err)
	middle := len(data) / 2
	switch args[1] {
	case "half":
		data = data[:middle]
	case "flip":
		data = bytes.Clone(data)
		data[middle] ^= 0xff
	default:
		ts.Fatalf("no damage %q", args[1])
	}
	ts.Check(os.WriteFile(file, data, 0o644))
}

// cmdTimes: times FILE... gives files one and the same date.
func cmdTimes(ts *testscript.TestScript, _ bool, args []string) {
	when := time.Unix(1600000000, 0)
	for _, name := range args {
		ts.Check(os.Chtimes(ts.MkAbs(name), when, when))
	}
}

// cmdWithin: [!] within DURATION PROGRAM ARG... requires that a command ends in time, with success or without.
func cmdWithin(ts *testscript.TestScript, neg bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	start := time.Now()
	expect(ts, neg, run(ts, args[1:]))
	if took := time.Since(start); took > limit {
		ts.Fatalf("took %v, more than %v", took, limit)
	}
}

// debianRoot is made once, also where several stories ask for it.
var debianRoot = sync.OnceValues(func() (string, error) { return base.Debian(context.Background()) })

// cmdDebian: debian FILE puts a minimal Debian root file system there, as a tar.
func cmdDebian(ts *testscript.TestScript, _ bool, args []string) {
	file, err := debianRoot()
	ts.Check(err)
	ts.Check(copyFile(file, ts.MkAbs(args[0]), 0o644))
}

// removeTree removes what builds of an ordinary user left: folders without any permission, and files of subordinate ids,
// which only a namespace that maps those may touch.
func removeTree(ctx context.Context, dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, _ error) error {
		if entry.IsDir() {
			_ = os.Chmod(path, 0o700) // what it can't change, the next one may
		}
		return nil
	})
	if err := os.RemoveAll(dir); err == nil || os.Getuid() == 0 {
		return err
	}
	return command(ctx, "unshare", "--map-root-user", "--map-auto", "rm", "-rf", dir)
}
