package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// memoryCgroup is a cgroup made to limit memory.
type memoryCgroup struct{ dir string }

// newMemoryCgroup makes one of either version, below our own.
func newMemoryCgroup(bytes int64) (*memoryCgroup, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	err = errors.New("no cgroup limits memory here")
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		parent, limit := filepath.Join("/sys/fs/cgroup", parts[2]), "memory.max"
		if parts[1] == "memory" {
			parent, limit = filepath.Join("/sys/fs/cgroup/memory", parts[2]), "memory.limit_in_bytes"
		} else if parts[1] != "" {
			continue
		}
		dir, made := os.MkdirTemp(parent, loginPrefix)
		if made != nil {
			err = errors.Join(err, made)
			continue
		}
		c := &memoryCgroup{dir}
		if made = os.WriteFile(filepath.Join(dir, limit), []byte(strconv.FormatInt(bytes, 10)), 0); made == nil {
			return c, nil
		}
		err = errors.Join(err, made, c.remove())
	}
	return nil, err
}

// remove waits for the last process to be gone.
func (c *memoryCgroup) remove() (err error) {
	for range 100 {
		if err = os.Remove(c.dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// entering begins a command line of a program that is to run in the cgroup.
func (c *memoryCgroup) entering() []string {
	return []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, c.dir}
}

// canLimitMemory is found by trying, once: a process has to be able to enter, too.
var canLimitMemory = sync.OnceValue(func() bool {
	c, err := newMemoryCgroup(64 << 20)
	if err != nil {
		return false
	}
	enter := append(c.entering(), "true")
	return errors.Join(command(context.Background(), enter[0], enter[1:]...), c.remove()) == nil
})

// cmdMemory: memory SIZE PROGRAM ARG... runs a program that may have that many megabytes of memory, with all it starts. It has to fail.
func cmdMemory(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	c, err := newMemoryCgroup(size << 20)
	ts.Check(err)
	defer func() { ts.Check(c.remove()) }()
	expect(ts, true, run(ts, append(c.entering(), args[1:]...)))
}
