package main

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func cat(args []string) error {
	if len(args) == 0 {
		args = []string{"-"}
	}
	for _, name := range args {
		in := os.Stdin
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		if _, err := io.Copy(os.Stdout, in); err != nil {
			return err
		}
	}
	return nil
}

// into is where source goes when the last operand of cp, mv or ln is target.
func into(target, source string) string {
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		return filepath.Join(target, filepath.Base(source))
	}
	return target
}

func cp(args []string) error {
	flags, args := options(args, "")
	if len(args) < 2 {
		return errors.New("usage: cp [-ar] SOURCE... TARGET")
	}
	deep := has(flags, 'r') || has(flags, 'a') || has(flags, 'R')
	target := args[len(args)-1]
	for _, source := range args[:len(args)-1] {
		info, err := os.Stat(source)
		if err != nil {
			return err
		}
		if info.IsDir() && !deep {
			return errors.New("omitting the directory " + source)
		}
		if err := copyTree(source, into(target, source), has(flags, 'a') || has(flags, 'p')); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies files, folders and links; with keep also owners and dates.
func copyTree(source, target string, keep bool) error {
	return filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(source, path)
		to := filepath.Join(target, rel)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if err := copyOne(path, to, info); err != nil || !keep {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil || info.Mode()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(to, info.ModTime(), info.ModTime())
	})
}

func copyOne(from, to string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return os.MkdirAll(to, info.Mode().Perm())
	case info.Mode()&fs.ModeSymlink != 0:
		text, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(text, to)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func mv(args []string) error {
	_, args = options(args, "")
	if len(args) < 2 {
		return errors.New("usage: mv SOURCE... TARGET")
	}
	target := args[len(args)-1]
	for _, source := range args[:len(args)-1] {
		to := into(target, source)
		err := os.Rename(source, to)
		if errors.Is(err, syscall.EXDEV) {
			err = errors.Join(copyTree(source, to, true), os.RemoveAll(source))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func rm(args []string) error {
	flags, args := options(args, "")
	for _, name := range args {
		remove := os.Remove
		if has(flags, 'r') || has(flags, 'R') {
			remove = os.RemoveAll
		}
		if err := remove(name); err != nil && (!has(flags, 'f') || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

func mkdir(args []string) error {
	flags, args := options(args, "m")
	for _, name := range args {
		make := os.Mkdir
		if has(flags, 'p') {
			make = os.MkdirAll
		}
		if err := make(name, 0o777); err != nil {
			return err
		}
		if text, ok := flags['m']; ok {
			if err := changeMode(name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

func rmdir(args []string) error {
	for _, name := range args {
		if err := syscall.Rmdir(name); err != nil {
			return err
		}
	}
	return nil
}

// touch makes files; "-d @SECONDS" sets their time.
func touch(args []string) error {
	flags, args := options(args, "d")
	when := time.Now()
	if text, ok := flags['d']; ok {
		seconds, err := strconv.ParseInt(strings.TrimPrefix(text, "@"), 10, 64)
		if err != nil {
			return err
		}
		when = time.Unix(seconds, 0)
	}
	for _, name := range args {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o666)
		if errors.Is(err, syscall.EISDIR) {
			file, err = os.Open(name)
		}
		if err != nil {
			return err
		}
		if err := errors.Join(file.Close(), os.Chtimes(name, when, when)); err != nil {
			return err
		}
	}
	return nil
}

func ln(args []string) error {
	flags, args := options(args, "")
	if len(args) != 2 {
		return errors.New("usage: ln [-sf] SOURCE TARGET")
	}
	to := into(args[1], args[0])
	if has(flags, 'f') {
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if has(flags, 's') {
		return os.Symlink(args[0], to)
	}
	return os.Link(args[0], to)
}

// mknod makes a device: "mknod NAME c|b MAJOR MINOR".
func mknod(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: mknod NAME c|b MAJOR MINOR")
	}
	kind := uint32(syscall.S_IFCHR)
	if args[1] == "b" {
		kind = syscall.S_IFBLK
	}
	major, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	minor, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	return syscall.Mknod(args[0], kind|0o644, major<<8|minor)
}

func mkfifo(args []string) error {
	for _, name := range args {
		if err := syscall.Mkfifo(name, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mksock leaves a unix socket behind.
func mksock(args []string) error {
	for _, name := range args {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			return err
		}
		listener.SetUnlinkOnClose(false)
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// dd writes zeros: "dd of=FILE bs=BYTES count=N" (bs without a unit, or with k or M).
func dd(args []string) error {
	block, count, out := 512, 1, os.Stdout
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "of":
			file, err := os.Create(value)
			if err != nil {
				return err
			}
			defer file.Close()
			out = file
		case "bs":
			unit := map[byte]int{'k': 1 << 10, 'M': 1 << 20}[value[len(value)-1]]
			block = number(strings.TrimRight(value, "kM")) * max(unit, 1)
		case "count":
			count = number(value)
		}
	}
	for zeros := make([]byte, block); count > 0; count-- {
		if _, err := out.Write(zeros); err != nil {
			return err
		}
	}
	return nil
}

// number reads a decimal number; what is none counts as 0.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
