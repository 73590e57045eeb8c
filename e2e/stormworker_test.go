package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	killedOneIn   = 4 // commands that may be
	stormTagNames = 4
)

// promise is what must hold of a name.
type promise int

const (
	unsure promise = iota // a command was killed that would have changed it
	present
	absent
)

// worker runs one command after the other.
type worker struct {
	storm  *storm
	id     int
	random *rand.Rand
	names  map[string]promise // its own, by full name
	ids    map[string]string
	count  int
}

func (w *worker) run() {
	w.ids = map[string]string{}
	for time.Now().Before(w.storm.end) {
		w.step()
	}
}

func (w *worker) own(format string, args ...any) string {
	return fmt.Sprintf("docker.io/w%d/", w.id) + fmt.Sprintf(format, args...)
}

// step does one thing by chance.
func (w *worker) step() {
	w.count++
	switch n := w.random.Intn(100); {
	case n < 20:
		w.load(w.random.Intn(archivesEach))
	case n < 40:
		w.pull()
	case n < 60:
		w.tag()
	case n < 75:
		w.remove()
	case n < 85 && w.storm.builds:
		w.build()
	case n < 90:
		w.command(0, "image", "prune", "-f")
	case n < 94:
		w.save()
	case n < 97:
		w.command(0, "check", "-q")
	default:
		w.command(0, "images", "-q")
	}
}

// command runs wherry, or kills it within a while. Without a kill it must succeed.
func (w *worker) command(mayDie time.Duration, args ...string) (stdout string, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	dies := mayDie > 0 && w.random.Intn(killedOneIn) == 0
	after := time.Duration(w.random.Int63n(int64(mayDie) + 1))
	cmd := prepare(ctx, w.storm.ts, append([]string{"wherry"}, args...))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		w.storm.fail("%v: %v", args, err)
		return "", false
	}
	if dies {
		timer := time.AfterFunc(after, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer timer.Stop()
	}
	err := cmd.Wait()
	w.storm.mu.Lock()
	defer w.storm.mu.Unlock()
	switch {
	case err == nil:
		w.storm.done[args[0]]++
		return out.String(), true
	case dies && cmd.ProcessState.ExitCode() == -1:
		w.storm.killed++
	case args[0] == "build" && bytes.Contains(errs.Bytes(), []byte("engine")): // another's, that was killed
		w.storm.done["build lost its engine"]++
	case ctx.Err() != nil:
		w.storm.failures = append(w.storm.failures, fmt.Sprintf("%v: hangs\n%s", args, errs.String()))
	default:
		w.storm.failures = append(w.storm.failures, fmt.Sprintf("%v: %v\n%s", args, err, errs.String()))
	}
	return "", false
}

// change runs a command that makes name stand for id, or for nothing, in the end.
func (w *worker) change(name, id string, to promise, mayDie time.Duration, args ...string) (stdout string, ok bool) {
	stdout, ok = w.command(mayDie, args...)
	if !ok {
		if w.names[name] != to || w.ids[name] != id {
			w.names[name] = unsure
		}
		return stdout, false
	}
	w.names[name], w.ids[name] = to, id
	return stdout, true
}

func (w *worker) load(k int) {
	name := w.own("load:%d", k)
	w.change(name, w.storm.ids[name], present, 200*time.Millisecond, "load", "-q", "-i", archiveFile(w.id, k))
}

// pull brings one of the shared names, for one platform or all.
func (w *worker) pull() {
	ref := []string{"app:1", "app:2", "multi:1", "multi:2"}[w.random.Intn(4)]
	args := []string{"pull", "-q"}
	p := ""
	if strings.HasPrefix(ref, "multi") {
		p = []string{"linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le"}[w.random.Intn(4)]
		args = append(args, "--platform", p)
	}
	name := w.storm.registry.addr + "/" + ref
	if _, ok := w.command(300*time.Millisecond, append(args, name)...); !ok {
		return
	}
	digest, err := w.storm.registry.digest(ref)
	if err != nil {
		w.storm.fail("%v", err)
		return
	}
	w.storm.mu.Lock()
	defer w.storm.mu.Unlock()
	w.storm.shared[name] = digest
	if w.storm.platform[name] == nil {
		w.storm.platform[name] = map[string]bool{}
	}
	if p != "" {
		w.storm.platform[name][p] = true
	}
}

// pick chooses one of the worker's names that must be there.
func (w *worker) pick() (name string, ok bool) {
	var there []string
	for n, p := range w.names {
		if p == present {
			there = append(there, n)
		}
	}
	if len(there) == 0 {
		return "", false
	}
	slices.Sort(there)
	return there[w.random.Intn(len(there))], true
}

func (w *worker) tag() {
	from, ok := w.pick()
	if !ok {
		return
	}
	to := w.own("tag:%d", w.random.Intn(stormTagNames))
	w.change(to, w.ids[from], present, 60*time.Millisecond, "tag", from, to)
}

func (w *worker) remove() {
	name, ok := w.pick()
	if ok {
		w.change(name, "", absent, 60*time.Millisecond, "rmi", name)
	}
}

func (w *worker) save() {
	name, ok := w.pick()
	if ok {
		w.command(100*time.Millisecond, "save", "-o", fmt.Sprintf("w%d-saved.tar", w.id), name)
	}
}

// build makes an image that nobody else has.
func (w *worker) build() {
	name, dir := w.own("build:%d", w.random.Intn(3)), w.storm.ts.MkAbs(fmt.Sprintf("w%d-context", w.id))
	dockerfile := "FROM toolbox\nCOPY file /\n"
	if w.random.Intn(2) == 0 {
		dockerfile += "RUN cat /file > /copy\n"
	}
	err := errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "file"), fmt.Appendf(nil, "%d %d\n", w.id, w.count), 0o600),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600),
	)
	if err != nil {
		w.storm.fail("%v", err)
		return
	}
	id, ok := w.change(name, "", unsure, 1500*time.Millisecond, "build", "-q", "-t", name, dir)
	if ok {
		w.names[name], w.ids[name] = present, strings.TrimSpace(id)
	}
}
