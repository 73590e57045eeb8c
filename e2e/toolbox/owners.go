package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// changeMode sets an octal mode, or adds one of +x, +r, +w, +s, u+s, +t.
func changeMode(name, text string) error {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			return err
		}
		add, ok := map[string]uint32{
			"+x": 0o111, "+r": 0o444, "+w": 0o222, "+s": 0o6000, "u+s": 0o4000, "g+s": 0o2000, "+t": 0o1000,
		}[text]
		if !ok {
			return fmt.Errorf("mode %q is not understood", text)
		}
		mode = uint64(st.Mode&0o7777 | add)
	}
	return syscall.Chmod(name, uint32(mode))
}

func chmod(args []string) error {
	return overTree(args, changeMode)
}

// overTree calls change(name, args[0]) for the other operands, with -R for all below them.
func overTree(args []string, change func(name, value string) error) error {
	deep := len(args) > 0 && args[0] == "-R"
	if deep {
		args = args[1:]
	}
	if len(args) < 2 {
		return errors.New("usage: [-R] VALUE FILE")
	}
	for _, name := range args[1:] {
		if !deep {
			if err := change(name, args[0]); err != nil {
				return err
			}
			continue
		}
		err := filepath.WalkDir(name, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, change(path, args[0]))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func chown(args []string) error {
	return overTree(args, func(name, value string) error {
		owner, group, _ := strings.Cut(value, ":")
		uid, err := lookUp("/etc/passwd", owner)
		if err != nil {
			return err
		}
		gid, err := lookUp("/etc/group", group)
		if err != nil {
			return err
		}
		return os.Lchown(name, uid, gid)
	})
}

// lookUp turns a name or a number into an id by file; nothing is -1, "leave it".
func lookUp(file, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	for _, row := range table(file) {
		if row[0] == name {
			return strconv.Atoi(row[2])
		}
	}
	return 0, fmt.Errorf("no %q in %s", name, file)
}

// table reads a file in the format of /etc/passwd and /etc/group.
func table(file string) [][]string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if row := strings.Split(strings.TrimSpace(line), ":"); len(row) >= 3 {
			rows = append(rows, row)
		}
	}
	return rows
}

// netBind is the file capability cap_net_bind_service=ep in its on-disk form, revision 2.
const netBind = "0100000200040000000000000000000000000000"

// setcap gives a file the capability to bind low ports.
func setcap(args []string) error {
	data, err := hex.DecodeString(netBind)
	if err != nil {
		return err
	}
	for _, name := range args {
		if err := syscall.Setxattr(name, "security.capability", data, 0); err != nil {
			return err
		}
	}
	return nil
}

// getcap prints the raw file capabilities of its operands.
func getcap(args []string) error {
	for _, name := range args {
		data := make([]byte, 64)
		n, err := syscall.Getxattr(name, "security.capability", data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Println(name, hex.EncodeToString(data[:n]))
	}
	return nil
}

// getfattr prints an extended attribute of its operands: "getfattr -n NAME FILE...".
func getfattr(args []string) error {
	flags, args := options(args, "n")
	for _, name := range args {
		data := make([]byte, 256)
		n, err := syscall.Getxattr(name, flags['n'], data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("%s %s\n", name, strings.TrimRight(string(data[:n]), "\x00"))
	}
	return nil
}

// setfattr sets an extended attribute: "setfattr -n NAME -v VALUE FILE".
func setfattr(args []string) error {
	flags, args := options(args, "nv")
	for _, name := range args {
		if err := syscall.Setxattr(name, flags['n'], []byte(flags['v']), 0); err != nil {
			return err
		}
	}
	return nil
}

// su runs a command as another user: "su UID:GID COMMAND...".
func su(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: su UID:GID COMMAND")
	}
	owner, group, _ := strings.Cut(args[0], ":")
	cmd := exec.CommandContext(context.Background(), args[1], args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: uint32(number(owner)), Gid: uint32(number(group)),
	}}
	return cmd.Run()
}

// kill sends a signal to processes: "kill -9 PID". A shell has one built in, so it is called by its path.
func kill(args []string) error {
	if len(args) < 2 || !strings.HasPrefix(args[0], "-") {
		return errors.New("usage: -SIGNAL PID")
	}
	signal, err := strconv.Atoi(args[0][1:])
	for _, text := range args[1:] {
		pid, bad := strconv.Atoi(text)
		err = errors.Join(err, bad)
		if err == nil {
			err = syscall.Kill(pid, syscall.Signal(signal))
		}
	}
	return err
}
