package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ls lists names; with -l (or -n) as "MODE LINKS UID GID SIZE NAME [-> TEXT]".
func ls(args []string) error {
	flags, args := options(args, "")
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, name := range args {
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		if !info.IsDir() || has(flags, 'd') {
			show(flags, name, name)
			continue
		}
		entries, err := os.ReadDir(name)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if has(flags, 'a') || has(flags, 'A') || !strings.HasPrefix(entry.Name(), ".") {
				show(flags, filepath.Join(name, entry.Name()), entry.Name())
			}
		}
	}
	return nil
}

func show(flags map[byte]string, path, name string) {
	if !has(flags, 'l') && !has(flags, 'n') {
		fmt.Println(name)
		return
	}
	text, err := describe(path, "%A %h %u %g %s ")
	if err != nil {
		text = err.Error() + " "
	}
	if target, err := os.Readlink(path); err == nil {
		name += " -> " + target
	}
	fmt.Println(text + name)
}

// stat prints facts of files by a format: %a octal mode, %A mode, %u %g owner,
// %U %G their names, %s size, %h links, %Y time, %n name, %F kind, %d device, %i inode.
func stat(args []string) error {
	flags, args := options(args, "c")
	format := flags['c']
	if format == "" {
		format = "%n %A %u:%g %s"
	}
	for _, name := range args {
		text, err := describe(name, format)
		if err != nil {
			return err
		}
		fmt.Println(text)
	}
	return nil
}

func describe(name, format string) (string, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	return strings.NewReplacer(
		"%a", strconv.FormatUint(uint64(st.Mode&0o7777), 8), "%A", info.Mode().String(),
		"%u", strconv.Itoa(int(st.Uid)), "%g", strconv.Itoa(int(st.Gid)),
		"%U", nameOf("/etc/passwd", int(st.Uid)), "%G", nameOf("/etc/group", int(st.Gid)),
		"%s", strconv.FormatInt(info.Size(), 10), "%h", fmt.Sprint(st.Nlink),
		"%Y", strconv.FormatInt(info.ModTime().Unix(), 10), "%n", name, "%F", kindOf(info.Mode()),
		"%d", fmt.Sprint(st.Dev), "%i", strconv.FormatUint(st.Ino, 10),
	).Replace(format), nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "folder"
	case mode&fs.ModeSymlink != 0:
		return "link"
	case mode&fs.ModeCharDevice != 0:
		return "character device"
	case mode&fs.ModeDevice != 0:
		return "block device"
	case mode&fs.ModeSocket != 0:
		return "socket"
	}
	return "fifo"
}

func nameOf(file string, id int) string {
	for _, row := range table(file) {
		if row[2] == strconv.Itoa(id) {
			return row[0]
		}
	}
	return "UNKNOWN"
}

func readlink(args []string) error {
	for _, name := range args {
		text, err := os.Readlink(name)
		if err != nil {
			return err
		}
		fmt.Println(text)
	}
	return nil
}

// find prints every path below its operands, on one file system with -x.
func find(args []string) error {
	flags, args := options(args, "")
	for _, root := range args {
		device, _ := describe(root, "%d")
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if here, _ := describe(path, "%d"); has(flags, 'x') && here != device {
				fmt.Println(path)
				if entry.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			fmt.Println(path)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// id prints "uid=0(root) gid=0(root) groups=0,10", or one number with -u or -g, or the groups with -G.
func id(args []string) error {
	flags, _ := options(args, "")
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	slices.Sort(groups)
	list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(groups)), ","), "[]")
	switch {
	case has(flags, 'u'):
		fmt.Println(os.Geteuid())
	case has(flags, 'g'):
		fmt.Println(os.Getegid())
	case has(flags, 'G'):
		fmt.Println(list)
	default:
		fmt.Printf("uid=%d(%s) gid=%d(%s) groups=%s\n", os.Geteuid(), nameOf("/etc/passwd", os.Geteuid()),
			os.Getegid(), nameOf("/etc/group", os.Getegid()), list)
	}
	return nil
}

func whoami([]string) error {
	fmt.Println(nameOf("/etc/passwd", os.Geteuid()))
	return nil
}

// env prints the environment in order, or runs a command in one that has more.
func env(args []string) error {
	vars := os.Environ()
	for len(args) > 0 && strings.Contains(args[0], "=") {
		vars, args = append(vars, args[0]), args[1:]
	}
	if len(args) == 0 {
		slices.Sort(vars)
		fmt.Println(strings.Join(vars, "\n"))
		return nil
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, vars)
}

// hostname prints this host's name, or sets it.
func hostname(args []string) error {
	if len(args) > 0 {
		return syscall.Sethostname([]byte(args[0]))
	}
	name, err := os.Hostname()
	fmt.Println(name)
	return err
}

// uname prints the architecture as Go names it.
func uname([]string) error {
	fmt.Println(runtime.GOOS, runtime.GOARCH)
	return nil
}

func umask([]string) error {
	old := syscall.Umask(0)
	syscall.Umask(old)
	_, err := fmt.Printf("%04o\n", old)
	return err
}

func nproc([]string) error {
	if runtime.NumCPU() < 1 {
		return errors.New("no processor")
	}
	fmt.Println(runtime.NumCPU())
	return nil
}
