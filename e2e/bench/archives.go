package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	archivedName = "docker.io/library/big:1" // of the image that is saved
	holeName     = "docker.io/library/hole:1"
)

// archives saves and loads an image of four layers, on the disk at hand and on
// file systems that share blocks; and one with a layer of 5 GB.
func (b *bench) archives(ctx context.Context) error {
	if err := b.archivesIn(ctx, "", filepath.Join(b.dir, "archives")); err != nil {
		return err
	}
	for _, kind := range []string{"xfs", "btrfs"} {
		dir, unmount, err := b.loop(ctx, kind)
		if err != nil {
			fmt.Fprintf(os.Stderr, "without %s: %v\n", kind, err)
			continue
		}
		if err := errors.Join(b.archivesIn(ctx, " on "+kind, dir), unmount()); err != nil {
			return err
		}
	}
	return b.largeLayer(ctx, filepath.Join(b.dir, "large"))
}

// places are the files and folders of one comparison.
type places struct {
	store, archive string // what is saved, and loaded
	out, other     string // what each run makes
}

func (p places) gone() error {
	err := errors.Join(os.RemoveAll(p.out), os.RemoveAll(p.other))
	unix.Sync() // what the one before left to write is not for this one
	return err
}

// archivesIn compares in one folder. Where blocks are shared, the measure is a copy
// that does not share them; elsewhere tar and sha256sum.
func (b *bench) archivesIn(ctx context.Context, where, dir string) error {
	p := places{filepath.Join(dir, "store"), filepath.Join(dir, "big.tar"), filepath.Join(dir, "out.tar"), filepath.Join(dir, "other")}
	if err := writeImage(p.store, archivedName, pullMegabytes); err != nil {
		return err
	}
	if _, err := b.time(ctx, contender{args: []string{b.wherry, "--store", p.store, "save", "-o", p.archive, archivedName}}); err != nil {
		return err
	}
	saves, loads := b.saves(p), b.loads(p)
	if where == "" {
		packed := contender{name: "wherry save .tar.zst", ready: p.gone, args: []string{b.wherry, "--store", p.store, "save", "-o", filepath.Join(dir, "out.tar.zst"), archivedName}}
		saves = slices.Concat([]contender{packed}, skopeo(p.gone, "oci:"+p.store+":"+archivedName, "oci-archive:"+p.out), saves)
		loads = slices.Concat(skopeo(p.gone, "oci-archive:"+p.archive+":"+archivedName, "oci:"+p.other), loads)
	} else {
		copied := contender{name: "cp --reflink=never, sync", ready: p.gone, args: []string{"sh", "-c", `cp --reflink=never "$1" "$2" && sync "$2"`, "sh", p.archive, p.out}}
		saves, loads = append(saves, copied), append(loads, copied)
	}
	if err := b.compare(ctx, "save 737 MB"+where, saves...); err != nil {
		return err
	}
	if err := b.compare(ctx, "load 737 MB"+where, loads...); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(p.store), os.RemoveAll(p.archive), p.gone())
}

func (b *bench) saves(p places) []contender {
	return []contender{
		{name: "wherry save", ready: p.gone, args: []string{b.wherry, "--store", p.store, "save", "-o", p.out, archivedName}},
		{name: "tar of the same files", ready: p.gone, args: []string{"tar", "-C", p.store, "-cf", p.out, "blobs"}},
	}
}

func (b *bench) loads(p places) []contender {
	return []contender{
		{name: "wherry load", ready: p.gone, args: []string{b.wherry, "--store", p.other, "load", "-q", "-i", p.archive}},
		{name: "cat | wherry load", ready: p.gone, args: []string{"sh", "-c", `cat "$1" | "$2" --store "$3" load -q`, "sh", p.archive, b.wherry, p.other}},
		{name: "sha256sum of the archive", ready: p.gone, args: []string{"sha256sum", p.archive}},
	}
}

// skopeo copies, if it is there.
func skopeo(ready func() error, from, to string) []contender {
	program, err := exec.LookPath("skopeo")
	if err != nil {
		return nil
	}
	return []contender{{name: "skopeo copy", ready: ready, args: []string{program, "--insecure-policy", "copy", "-q", from, to}}}
}

// loop mounts a file system of its own.
func (b *bench) loop(ctx context.Context, kind string) (dir string, unmount func() error, err error) {
	disk := filepath.Join(b.dir, kind+".disk")
	dir = filepath.Join(b.dir, kind)
	err = errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 8<<30), os.Mkdir(dir, 0o755))
	if err != nil {
		return "", nil, err
	}
	for _, args := range [][]string{{"mkfs." + kind, "-q", disk}, {"mount", "-t", kind, "-o", "loop", disk, dir}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("%w %s", err, out)
		}
	}
	return dir, func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(disk)) }, nil
}

// largeLayer is about memory.
func (b *bench) largeLayer(ctx context.Context, dir string) error {
	store, archive, other := filepath.Join(dir, "store"), filepath.Join(dir, "hole.tar"), filepath.Join(dir, "other")
	if err := os.MkdirAll(filepath.Join(store, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	if err := writeHoleImage(store, holeName, 5<<30); err != nil {
		return err
	}
	b.runs = 1
	err := b.compare(ctx, "save a layer of 5 GB", contender{name: "wherry save", args: []string{b.wherry, "--store", store, "save", "-o", archive, holeName}})
	if err == nil {
		err = b.compare(ctx, "load a layer of 5 GB", contender{name: "wherry load", args: []string{b.wherry, "--store", other, "load", "-q", "-i", archive}})
	}
	return errors.Join(err, os.RemoveAll(dir))
}
