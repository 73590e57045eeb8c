package main

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lines reads the named files, or standard input.
func lines(names []string) ([]string, error) {
	if len(names) == 0 {
		names = []string{"/dev/stdin"}
	}
	var list []string
	for _, name := range names {
		in := os.Stdin
		if name != "/dev/stdin" {
			file, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			in = file
		}
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			list = append(list, scanner.Text())
		}
		if err := scanner.Err(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func printAll(list []string) {
	for _, line := range list {
		fmt.Println(line)
	}
}

// head prints the first lines; "-c N" the first bytes of one file.
func head(args []string) error {
	flags, args := options(args, "nc")
	if text, ok := flags['c']; ok {
		in := os.Stdin
		if len(args) > 0 {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		_, err := io.CopyN(os.Stdout, in, int64(number(text)))
		return err
	}
	list, err := lines(args)
	printAll(list[:min(len(list), count(flags))])
	return err
}

func tail(args []string) error {
	flags, args := options(args, "n")
	list, err := lines(args)
	printAll(list[max(0, len(list)-count(flags)):])
	return err
}

func count(flags map[byte]string) int {
	if text, ok := flags['n']; ok {
		return number(text)
	}
	return 10
}

// wc counts lines, or bytes with -c.
func wc(args []string) error {
	flags, args := options(args, "")
	var in io.Reader = os.Stdin
	if len(args) > 0 {
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(in)
	if has(flags, 'c') {
		fmt.Println(len(text))
	} else {
		fmt.Println(strings.Count(string(text), "\n"))
	}
	return err
}

// grep prints matching lines: -v others, -q nothing, -c their number, -i any case.
func grep(args []string) error {
	flags, args := options(args, "")
	if len(args) < 1 {
		return errors.New("usage: grep [-cinqv] PATTERN [FILE...]")
	}
	text := args[0]
	if has(flags, 'i') {
		text = "(?i)" + text
	}
	pattern, err := regexp.Compile(text)
	if err != nil {
		return err
	}
	list, err := lines(args[1:])
	if err != nil {
		return err
	}
	found := slices.DeleteFunc(list, func(line string) bool {
		return pattern.MatchString(line) == has(flags, 'v')
	})
	switch {
	case has(flags, 'q'):
	case has(flags, 'c'):
		fmt.Println(len(found))
	default:
		printAll(found)
	}
	if len(found) == 0 {
		return exitCode(1)
	}
	return nil
}

func sortLines(args []string) error {
	flags, args := options(args, "")
	list, err := lines(args)
	slices.Sort(list)
	if has(flags, 'u') {
		list = slices.Compact(list)
	}
	printAll(list)
	return err
}

// seq counts from 1, or from its first operand, to the last.
func seq(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: seq [FIRST] LAST")
	}
	first, last := 1, number(args[len(args)-1])
	if len(args) > 1 {
		first = number(args[0])
	}
	for i := first; i <= last; i++ {
		fmt.Println(i)
	}
	return nil
}

func sleep(args []string) error {
	for _, arg := range args {
		seconds, err := strconv.ParseFloat(arg, 64)
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(seconds * float64(time.Second)))
	}
	return nil
}

func sha256sum(args []string) error {
	for _, name := range args {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Printf("%x  %s\n", sha256.Sum256(text), name)
	}
	return nil
}

// date prints the time in seconds and nanoseconds since 1970.
func date([]string) error {
	now := time.Now()
	_, err := fmt.Printf("%d.%09d\n", now.Unix(), now.Nanosecond())
	return err
}

// tarFiles packs folders: "tar -cf ARCHIVE -C FOLDER NAME...". "-" is standard output.
func tarFiles(args []string) (err error) {
	flags, args := options(args, "fC")
	out := os.Stdout
	if name := flags['f']; name != "-" && name != "" {
		if out, err = os.Create(name); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, out.Close()) }()
	}
	more, args := options(args, "C")
	folder := flags['C'] + more['C']
	archive := tar.NewWriter(out)
	defer func() { err = errors.Join(err, archive.Close()) }()
	for _, name := range args {
		if err := pack(archive, folder, name); err != nil {
			return err
		}
	}
	return nil
}

func pack(archive *tar.Writer, folder, name string) error {
	return filepath.WalkDir(filepath.Join(folder, name), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(folder, path); err != nil {
			return err
		}
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = archive.Write(text)
		return err
	})
}

// nc says whether "nc HOST:PORT" can be reached within two seconds.
func nc(args []string) error {
	for _, address := range args {
		conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}
