// Toolbox is the userland of the images that the stories build on: a shell and
// the small commands that a Dockerfile's RUN steps call, in one static program
// that answers to many names, as busybox does. It compiles for every platform
// that Go knows, so no story needs a hub, a mirror or a C compiler.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// applet is one command: args are what follows its name.
type applet func(args []string) error

// exitCode ends an applet with a code of its own and no message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// applets returns every command by the name it is called under.
func applets() map[string]applet {
	return map[string]applet{
		"sh": shell,
		// files.go
		"cat": cat, "cp": cp, "mv": mv, "rm": rm, "mkdir": mkdir, "rmdir": rmdir,
		"touch": touch, "ln": ln, "mknod": mknod, "mkfifo": mkfifo, "mksock": mksock, "dd": dd,
		// owners.go
		"chmod": chmod, "chown": chown, "setcap": setcap, "getcap": getcap, "getfattr": getfattr, "setfattr": setfattr,
		"su": su, "kill": kill,
		// look.go
		"ls": ls, "stat": stat, "readlink": readlink, "find": find, "id": id, "env": env,
		"hostname": hostname, "probe": probe, "uname": uname, "umask": umask, "whoami": whoami, "nproc": nproc,
		// text.go
		"head": head, "tail": tail, "wc": wc, "grep": grep, "sort": sortLines, "seq": seq, "sleep": sleep,
		"sha256sum": sha256sum, "tar": tarFiles, "date": date, "nc": nc,
		// may.go
		"may": may,
	}
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	all := applets()
	if _, ok := all[name]; !ok && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if name == "--list" {
		fmt.Println(strings.Join(names(all), "\n"))
		return
	}
	code := 127
	if run, ok := all[name]; ok {
		code = report(name, run(args))
	} else {
		fmt.Fprintf(os.Stderr, "toolbox: no command %q\n", name)
	}
	os.Exit(code)
}

func names(all map[string]applet) []string {
	var list []string
	for name := range all {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// report prints what went wrong and returns the exit code that says so.
func report(name string, err error) int {
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return 1
}

// options splits leading flags ("-rf", "-m755", "--") off args. Letters that
// stand in withValue take a value, attached or as the next argument.
func options(args []string, withValue string) (map[byte]string, []string) {
	flags := map[byte]string{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0][1:]
		args = args[1:]
		if word == "-" {
			break
		}
		for i := 0; i < len(word); i++ {
			flags[word[i]] = ""
			if !strings.Contains(withValue, word[i:i+1]) {
				continue
			}
			if rest := word[i+1:]; rest != "" {
				flags[word[i]] = rest
			} else if len(args) > 0 {
				flags[word[i]], args = args[0], args[1:]
			}
			break
		}
	}
	return flags, args
}

// has says whether flags holds letter.
func has(flags map[byte]string, letter byte) bool {
	_, ok := flags[letter]
	return ok
}
